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
