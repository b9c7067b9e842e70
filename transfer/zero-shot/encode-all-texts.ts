import { setImmediate } from 'node:timers/promises';
import { throwIfAborted } from '../../common/errors.ts';
import { ENCODE_BATCH, encodeTexts, type TextModules } from '../../worker/eval/encode-batch.ts';

export interface EncodeProgress {
  readonly signal?: AbortSignal | undefined;
  /** After each batch: how many texts are done, and of how many. */
  readonly onTexts?: ((done: number, total: number) => void) | undefined;
}

/** `encodeTexts` of any number of texts: between batches an interrupt is heard. */
export async function encodeAllTexts(
  texts: readonly string[],
  modules: TextModules,
  { signal, onTexts }: EncodeProgress = {},
): Promise<Float32Array> {
  const { embedDim } = modules.model.config;
  const embeddings = new Float32Array(texts.length * embedDim);
  for (let begin = 0; begin < texts.length; begin += ENCODE_BATCH) {
    await setImmediate();
    throwIfAborted(signal);
    const batch = texts.slice(begin, begin + ENCODE_BATCH);
    embeddings.set(encodeTexts(batch, modules), begin * embedDim);
    onTexts?.(begin + batch.length, texts.length);
  }
  return embeddings;
}
