import type { AugmentConfig } from '../../common/config/run-config.ts';
import { RandomStream } from '../../common/random.ts';
import { type Augmentation, drawAugmentation, recolors, warps, wholePixels } from './augmentation.ts';
import { colorMatrix } from './color-matrix.ts';
import { type DecodeLimits, openImage, toRgb } from './decode.ts';
import { Warp } from './warp.ts';

export interface TrainTransformOptions extends DecodeLimits {
  readonly imageSide: number;
  readonly seed: number;
  readonly augment: AugmentConfig;
  /** Side of the pictures that `decode` makes and `fromDecoded` takes; 0 where only `fromFile` is used. */
  readonly decodedSide: number;
}

/** What an augmentation is a function of, besides the seed: never rank, time or order of arrival. */
export interface ViewIdentity {
  readonly epoch: number;
  readonly sampleIndex: number;
  /** 0 for CLIP; SimCLR-like objectives take several views. */
  readonly view: number;
}

/**
 * The training transform, in two forms that a run's config chooses between (they differ in pixels, so it must never be a cache):
 * `fromFile` decodes and crops with sharp each time (bicubic, as open_clip); `decode` + `fromDecoded` decodes once to a small
 * square and augments from that in one bilinear pass. Output is uint8 RGB [side, side, 3]. Not to be shared by threads.
 */
export class TrainTransform {
  readonly #options: TrainTransformOptions;
  readonly #warp: Warp;

  constructor(options: TrainTransformOptions) {
    this.#options = options;
    this.#warp = new Warp({ side: options.imageSide });
  }

  /** Throws DATA_CORRUPT with `fields.reason` where the picture is broken. */
  async fromFile(bytes: Uint8Array, identity: ViewIdentity, into: Uint8Array): Promise<void> {
    const { imageSide, augment } = this.#options;
    const { header, pipeline } = openImage(bytes, this.#options);
    const view = this.#draw(identity, header);
    const box = wholePixels(view.crop, header);
    const cropped = pipeline
      .extract(box)
      .resize(imageSide, imageSide, { fit: 'fill', kernel: 'cubic', fastShrinkOnLoad: false });
    const { pixels } = await toRgb(cropped);
    if (!warps(augment)) {
      into.set(pixels);
      return;
    }
    const whole = { left: 0, top: 0, width: imageSide, height: imageSide };
    this.#run({ pixels, width: imageSide, height: imageSide }, { ...view, crop: whole }, into);
  }

  /**
   * Decodes to the square that `fromDecoded` takes: shortest side to `decodedSide` by bicubic, then the centre.
   * Throws DATA_CORRUPT with `fields.reason` where the picture is broken.
   */
  async decode(bytes: Uint8Array): Promise<Uint8Array> {
    const { decodedSide } = this.#options;
    const { pipeline } = openImage(bytes, this.#options);
    const square = pipeline.resize(decodedSide, decodedSide, {
      fit: 'cover',
      kernel: 'cubic',
      fastShrinkOnLoad: false,
    });
    const { pixels } = await toRgb(square);
    return pixels;
  }

  /** `decoded` is what `decode` returned. */
  fromDecoded(decoded: Uint8Array, identity: ViewIdentity, into: Uint8Array): void {
    const side = this.#options.decodedSide;
    const source = { pixels: decoded, width: side, height: side };
    this.#run(source, this.#draw(identity, source), into);
  }

  #draw(identity: ViewIdentity, source: { readonly width: number; readonly height: number }): Augmentation {
    const { seed, augment } = this.#options;
    const stream = new RandomStream('augment', seed, identity.epoch, identity.sampleIndex, identity.view);
    return drawAugmentation(stream, augment, source);
  }

  #run(
    source: { readonly pixels: Uint8Array; readonly width: number; readonly height: number },
    view: Augmentation,
    into: Uint8Array,
  ): void {
    const { augment } = this.#options;
    const color = recolors(augment) ? colorMatrix(view.color) : null;
    const clamped = new Uint8ClampedArray(into.buffer, into.byteOffset, into.byteLength);
    this.#warp.run(source, view, color, clamped, augment.rotateDegrees > 0);
  }
}
