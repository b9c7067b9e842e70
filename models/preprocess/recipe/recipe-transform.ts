import type { AugmentConfig } from '../../../common/config/augment-config.ts';
import { RandomStream } from '../../../common/random.ts';
import type { CropBox } from '../crop-box.ts';
import type { RgbImage } from '../decode.ts';
import { resizeAsPil } from '../pil-resize.ts';
import type { ViewIdentity } from '../view-identity.ts';
import { drawView, type ViewDraw } from './draw-view.ts';
import { flipHorizontally } from './flip.ts';
import { Photometric } from './photometric.ts';
import { viewSpec } from './view-plan.ts';

export interface RecipeTransformOptions {
  readonly imageSide: number;
  readonly seed: number;
  readonly augment: AugmentConfig;
}

/**
 * The augmentation of a named recipe, to the bit what torchvision makes of the same draws on a PIL picture: crop, resize, jitter,
 * grey, blur, solarise, flip. A view is a function of (seed, epoch, sample, view) and the picture. Not to be shared by threads.
 */
export class RecipeTransform {
  readonly #options: RecipeTransformOptions;
  readonly #photometric: Photometric;

  constructor(options: RecipeTransformOptions) {
    this.#options = options;
    this.#photometric = new Photometric(options.augment);
  }

  /** What a view of a picture of this size will do. */
  draw(identity: ViewIdentity, source: { readonly width: number; readonly height: number }): ViewDraw {
    const { seed, augment, imageSide } = this.#options;
    const stream = new RandomStream('augment', seed, identity.epoch, identity.sampleIndex, identity.view);
    return drawView(stream, augment, viewSpec(augment, imageSide, identity.view), source);
  }

  /** Uint8 RGB [side, side, 3], side = view.spec.side. */
  apply(source: RgbImage, view: ViewDraw): Uint8Array {
    const { side } = view.spec;
    const filter = this.#options.augment.interpolation ?? 'bilinear';
    const pixels = resizeAsPil(cropped(source, view.crop), side, side, { filter });
    this.#photometric.run(pixels, view);
    if (view.flip) flipHorizontally(pixels, side);
    return pixels;
  }
}

/** A copy of the box alone: torchvision crops before it resizes, so the filter must not see what lies outside. */
function cropped(source: RgbImage, box: CropBox): RgbImage {
  const { left, top, width, height } = box;
  if (width === source.width && height === source.height) return source;
  const pixels = new Uint8Array(width * height * 3);
  for (let row = 0; row < height; row++) {
    const begin = ((top + row) * source.width + left) * 3;
    pixels.set(source.pixels.subarray(begin, begin + 3 * width), row * width * 3);
  }
  return { pixels, width, height };
}
