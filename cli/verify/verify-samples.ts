import { PIXELS_MAX_DEFAULT } from '../../common/config/pixels-max.ts';
import { CoveyError } from '../../common/errors.ts';
import { evalTransform } from '../../models/preprocess/eval-transform.ts';
import { iconSetSamples, renderIcon } from '../../worker/data/pack/icon-source.ts';

/** Pictures and captions that an export is tried on. */
export interface VerifySamples {
  /** uint8 RGB [count, side, side, 3], after the evaluation transform. */
  readonly pixels: Uint8Array;
  readonly captions: readonly string[];
  readonly count: number;
  /** Where they are from, in words. */
  readonly source: string;
}

const ICON_SET = 'noto';
const RENDER_SIDE = 128;

/** Drawings with the words of their names, taken evenly from one icon set. @throws CoveyError NOT_FOUND where it is not installed */
export async function iconVerifySamples(count: number, imageSide: number): Promise<VerifySamples> {
  const all = iconSetSamples([ICON_SET], { side: RENDER_SIDE });
  const chosen = Array.from({ length: count }, (_, i) => all[Math.floor((i * all.length) / count)]!);
  const pictures = await Promise.all(chosen.map(renderIcon));
  return samplesOf(
    pictures,
    chosen.map(({ caption }) => caption),
    imageSide,
    `${count} drawings of @iconify-json/${ICON_SET}`,
  );
}

/** From pictures as files hold them. */
export async function samplesOf(
  pictures: readonly Uint8Array[],
  captions: readonly string[],
  imageSide: number,
  source: string,
): Promise<VerifySamples> {
  if (pictures.length === 0) throw new CoveyError('INVALID_ARGUMENT', `Cannot verify: ${source} has no pictures`);
  const bytes = 3 * imageSide ** 2;
  const pixels = new Uint8Array(pictures.length * bytes);
  for (const [i, picture] of pictures.entries()) {
    pixels.set(await evalTransform(picture, imageSide, { pixelsMax: PIXELS_MAX_DEFAULT }), i * bytes);
  }
  return { pixels, captions, count: pictures.length, source };
}
