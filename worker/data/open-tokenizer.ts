import type { RunConfig, TextConfig } from '../../common/config/run-config.ts';
import { CoveyError } from '../../common/errors.ts';
import type { ObjectStore } from '../../common/objectstore/object-store.ts';
import { loadTokenizer, type Tokenizer } from '../../models/tokenizer/tokenizer.ts';
import { splitManifestUrl } from './dataset.ts';

/** The tokenizer a config names: `clip`, or the URL of a tokenizer.json. The store it is read from is closed again. */
export async function openTokenizer(
  source: string,
  contextLength: number,
  openStore: (url: string) => Promise<ObjectStore>,
  signal?: AbortSignal,
): Promise<Tokenizer> {
  if (source === 'clip') return loadTokenizer(source, contextLength);
  const { storeUrl, key } = splitManifestUrl(source);
  const store = await openStore(storeUrl);
  try {
    const { bytes } = await store.get(key, signal ? { signal } : {});
    return await loadTokenizer(new TextDecoder().decode(bytes), contextLength);
  } finally {
    await store.close();
  }
}

/** The tokenizer of a run. @throws CoveyError CONFIG_INVALID where it has more tokens than the model has embeddings */
export async function openTokenizerFor(
  { data }: Pick<RunConfig, 'data'>,
  text: TextConfig,
  openStore: (url: string) => Promise<ObjectStore>,
  signal: AbortSignal,
): Promise<Tokenizer> {
  const tokenizer = await openTokenizer(data.tokenizer, text.contextLength, openStore, signal);
  if (tokenizer.vocabSize <= text.vocabSize) return tokenizer;
  throw new CoveyError(
    'CONFIG_INVALID',
    `Cannot train: the tokenizer has ${tokenizer.vocabSize} tokens, model.text.vocabSize is ${text.vocabSize}`,
  );
}
