import { setImmediate } from 'node:timers/promises';
import { throwIfAborted } from '../../common/errors.ts';
import { ENCODE_BATCH, encodeTexts, type TextModules } from '../../worker/eval/encode-batch.ts';

/** `encodeTexts` of any number of texts: between batches an interrupt is heard. */
export async function encodeAllTexts(
  texts: readonly string[],
  modules: TextModules & { readonly signal?: AbortSignal | undefined },
): Promise<Float32Array> {
  const { embedDim } = modules.model.config;
  const embeddings = new Float32Array(texts.length * embedDim);
  for (let begin = 0; begin < texts.length; begin += ENCODE_BATCH) {
    await setImmediate();
    throwIfAborted(modules.signal);
    embeddings.set(encodeTexts(texts.slice(begin, begin + ENCODE_BATCH), modules), begin * embedDim);
  }
  return embeddings;
}
