import type { RandomStream } from '../../common/random.ts';
import { roundHalfEven } from './round-half-even.ts';

/** Tries for a crop that fits, as torchvision's RandomResizedCrop. */
const CROP_ATTEMPTS = 10;

/** A box in the source picture; fractions of pixels are allowed. */
export interface CropBox {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

export interface PictureSize {
  readonly width: number;
  readonly height: number;
}

export interface CropRange {
  /** Of the picture's area. */
  readonly scale: readonly [number, number];
  /** Width over height; drawn uniformly in its logarithm. */
  readonly ratio: readonly [number, number];
}

/** torchvision.transforms.RandomResizedCrop.get_params; with `whole` rounded to whole pixels as there, else not at all. */
export function drawCrop(stream: RandomStream, range: CropRange, source: PictureSize, whole: boolean): CropBox {
  const area = source.width * source.height;
  const [ratioLow, ratioHigh] = range.ratio;
  const round = whole ? roundHalfEven : identity;
  // randint's upper end is not drawn: with h of H rows taken there are H − h + 1 places.
  const place = (room: number) => (whole ? stream.integer(room + 1) : stream.uniform(0, room));
  for (let attempt = 0; attempt < CROP_ATTEMPTS; attempt++) {
    const target = area * stream.uniform(...range.scale);
    const ratio = Math.exp(stream.uniform(Math.log(ratioLow), Math.log(ratioHigh)));
    const width = round(Math.sqrt(target * ratio));
    const height = round(Math.sqrt(target / ratio));
    if (whole && (width < 1 || height < 1)) continue;
    if (width <= source.width && height <= source.height) {
      const top = place(source.height - height);
      const left = place(source.width - width);
      return { left, top, width, height };
    }
  }
  return centralCrop(source, range.ratio, whole);
}

/** torchvision's fallback: the largest central crop whose ratio is allowed. */
function centralCrop(source: PictureSize, [ratioLow, ratioHigh]: readonly [number, number], whole: boolean): CropBox {
  const ratio = source.width / source.height;
  const round = whole ? roundHalfEven : identity;
  // A picture a pixel wide still has a crop.
  const width = ratio > ratioHigh ? Math.max(round(source.height * ratioHigh), whole ? 1 : 0) : source.width;
  const height = ratio < ratioLow ? Math.max(round(source.width / ratioLow), whole ? 1 : 0) : source.height;
  const middle = (room: number) => (whole ? Math.floor(room / 2) : room / 2);
  return { left: middle(source.width - width), top: middle(source.height - height), width, height };
}

/** The nearest box of whole pixels inside the picture, at least 1×1. */
export function wholePixels(box: CropBox, source: PictureSize): CropBox {
  const width = Math.min(Math.max(Math.round(box.width), 1), source.width);
  const height = Math.min(Math.max(Math.round(box.height), 1), source.height);
  const left = Math.min(Math.round(box.left), source.width - width);
  const top = Math.min(Math.round(box.top), source.height - height);
  return { left, top, width, height };
}

const identity = (value: number) => value;
