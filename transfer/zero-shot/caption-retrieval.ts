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
 * Retrieval between pictures and their captions, both ways. A caption of several pictures is one text: a picture looks for its text among the different
 * ones, a text for the nearest of its pictures. Where all captions differ this is the usual recall.
 * @param captions of each picture; undefined ones are left out
 * @returns undefined where fewer than two different captions occur
 */
export async function captionRetrieval(
  embeddings: Embeddings,
  captions: readonly (string | undefined)[],
  modules: TextModules,
  progress: EncodeProgress = {},
): Promise<CaptionRetrieval | undefined> {
  const rows = Int32Array.from(captions.keys()).filter((row) => captions[row] !== undefined);
  const texts = [...new Set([...rows].map((row) => captions[row]!))];
  if (texts.length < 2) return undefined;
  const index = new Map(texts.map((text, t) => [text, t]));
  const textOf_N = Int32Array.from(captions, (caption) => (caption === undefined ? -1 : index.get(caption)!));
  const texts_TE = await encodeAllTexts(texts, modules, progress);
  const comparing = { engine: modules.engine, signal: progress.signal, rows };
  const imageToText: number[] = [];
  // Of each text the best similarity among its own pictures, and the first picture that has it.
  const bestOwn_T = new Float32Array(texts.length).fill(Number.NEGATIVE_INFINITY);
  const bestRow_T = new Int32Array(texts.length);
  await similarityRows(embeddings, texts_TE, comparing, (row, similarities) => {
    const truth = textOf_N[row]!;
    imageToText.push(placeOf(similarities, truth));
    if (similarities[truth]! > bestOwn_T[truth]!) {
      bestOwn_T[truth] = similarities[truth]!;
      bestRow_T[truth] = row;
    }
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
