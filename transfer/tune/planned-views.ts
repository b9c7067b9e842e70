import type { PictureSample, PictureSource } from '../data/picture-source.ts';
import type { PlannedSample } from './batch-plan.ts';

/** Augmented pictures of a batch, uint8 [B, side, side, 3]; a small set's batch may span several epochs. */
export async function plannedViews(
  planned: readonly PlannedSample<PictureSample>[],
  pictures: PictureSource,
  signal: AbortSignal | undefined,
): Promise<Uint8Array> {
  const bytes = pictures.imageSide ** 2 * 3;
  const pixels = new Uint8Array(planned.length * bytes);
  let begin = 0;
  while (begin < planned.length) {
    const { epoch } = planned[begin]!;
    const end = planned.findIndex((one, row) => row > begin && one.epoch !== epoch);
    const part = planned.slice(begin, end < 0 ? planned.length : end);
    const located = part.map(({ sample }) => sample.located);
    pixels.set(await pictures.trainPixels(located, epoch, signal), begin * bytes);
    begin += part.length;
  }
  return pixels;
}
