import { type Embeddings, similarityRows } from '../../worker/eval/classify.ts';
import type { TextModules } from '../../worker/eval/encode-batch.ts';
import { placeOf, retrievalMetrics } from '../../worker/eval/retrieval.ts';
import { type EncodeProgress, encodeAllTexts } from './encode-all-texts.ts';

export interface CaptionRetrieval {
  /** Pictures with a caption, and how many different captions they have. */
  readonly pictures: number;
  readonly captions: number;
  /** `image_to_text_R@1` … and `text_to_image_…`, as evaluation during training names them (docs/evaluation.md). */
  readonly metrics: Readonly<Record<string, number>>;
}

/**
 * Retrieval between pictures and their captions, both ways, as is usual where pictures have several (COCO's five; CLIP_benchmark's
 * `zeroshot_retrieval`): a picture looks for any of its captions among all of them, so its place is that of the best one; each caption looks for its picture.
 * The same words are one caption, right with the nearest of the pictures that have them. With one caption a picture, all different, this is the usual recall.
 * @param captions of each picture; those without any are left out
 * @returns undefined where fewer than two different captions occur
 */
export async function captionRetrieval(
  embeddings: Embeddings,
  captions: readonly (readonly string[])[],
  modules: TextModules,
  progress: EncodeProgress = {},
): Promise<CaptionRetrieval | undefined> {
  const rows = Int32Array.from(captions.keys()).filter((row) => captions[row]!.length > 0);
  const texts = [...new Set(captions.flat())];
  if (texts.length < 2) return undefined;
  const index = new Map(texts.map((text, t) => [text, t]));
  const textsOf = captions.map((own) => [...new Set(own.map((caption) => index.get(caption)!))]);
  const texts_TE = await encodeAllTexts(texts, modules, progress);
  const comparing = { engine: modules.engine, signal: progress.signal, rows };
  const imageToText: number[] = [];
  // Of each text the best similarity among its own pictures, and the first picture that has it.
  const bestOwn_T = new Float32Array(texts.length).fill(Number.NEGATIVE_INFINITY);
  const bestRow_T = new Int32Array(texts.length);
  await similarityRows(embeddings, texts_TE, comparing, (row, similarities) => {
    let place = Number.POSITIVE_INFINITY;
    for (const t of textsOf[row]!) {
      place = Math.min(place, placeOf(similarities, t));
      if (similarities[t]! <= bestOwn_T[t]!) continue;
      bestOwn_T[t] = similarities[t]!;
      bestRow_T[t] = row;
    }
    imageToText.push(place);
  });
  // Pictures before a text's own best one, and as near with a smaller number.
  const textToImage = new Int32Array(texts.length);
  await similarityRows(embeddings, texts_TE, comparing, (row, similarities) => {
    for (let t = 0; t < texts.length; t++) {
      const similarity = similarities[t]!;
      if (similarity > bestOwn_T[t]! || (similarity === bestOwn_T[t]! && row < bestRow_T[t]!)) textToImage[t]!++;
    }
  });
  return {
    pictures: rows.length,
    captions: texts.length,
    metrics: {
      ...retrievalMetrics('image_to_text', imageToText),
      ...retrievalMetrics('text_to_image', [...textToImage]),
    },
  };
}
