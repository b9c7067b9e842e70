import type { Sharp } from 'sharp';
import type { AugmentConfig } from '../../common/config/augment-config.ts';
import { RandomStream } from '../../common/random.ts';
import { type Augmentation, drawAugmentation, recolors, warps } from './augmentation.ts';
import { colorMatrix } from './color-matrix.ts';
import { type PictureSize, wholePixels } from './crop-box.ts';
import { type DecodeLimits, decodeRgb, isPlainRgb, openImage, type RgbImage, rawPipeline, toRgb } from './decode.ts';
import { RecipeTransform } from './recipe/recipe-transform.ts';
import type { ViewIdentity } from './view-identity.ts';
import { Warp } from './warp.ts';

export interface TrainTransformOptions extends DecodeLimits {
  readonly imageSide: number;
  readonly seed: number;
  readonly augment: AugmentConfig;
  /** Side of the pictures that `decode` makes and `fromDecoded` takes; 0 where only `fromFile` is used. */
  readonly decodedSide: number;
}

/**
 * The training transform, in two forms that a run's config chooses between (they differ in pixels, so it must never be a cache):
 * `fromFile` decodes and crops with sharp each time (bicubic, as open_clip); `decode` + `fromDecoded` decodes once to a small
 * square and augments from that in one bilinear pass. Output is uint8 RGB [side, side, 3]. Not to be shared by threads.
 *
 * A config that names a recipe is carried out by RecipeTransform instead, from the whole picture or from the decoded square.
 */
export class TrainTransform {
  readonly #options: TrainTransformOptions;
  readonly #warp: Warp;
  readonly #recipe: RecipeTransform | null;

  constructor(options: TrainTransformOptions) {
    this.#options = options;
    this.#warp = new Warp({ side: options.imageSide });
    this.#recipe = options.augment.recipe === undefined ? null : new RecipeTransform(options);
  }

  /** Throws DATA_CORRUPT with `fields.reason` where the picture is broken. */
  async fromFile(bytes: Uint8Array, identity: ViewIdentity, into: Uint8Array): Promise<void> {
    if (this.#recipe !== null) {
      this.#followRecipe(this.#recipe, await decodeRgb(bytes, this.#options), identity, into);
      return;
    }
    const { header, pipeline } = openImage(bytes, this.#options);
    await this.#cropAndWarp(pipeline, header, identity, into);
  }

  async #cropAndWarp(pipeline: Sharp, size: PictureSize, identity: ViewIdentity, into: Uint8Array): Promise<void> {
    const { imageSide, augment } = this.#options;
    const view = this.#draw(identity, size);
    const box = wholePixels(view.crop, size);
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
   * Every view of one file, each with the pixels that `fromFile` gives it, from one decode where that gives the same pixels. Throws as
   * `fromFile`.
   */
  async viewsOfFile(
    bytes: Uint8Array,
    identities: readonly ViewIdentity[],
    into: readonly Uint8Array[],
  ): Promise<void> {
    const decoded = identities.length > 1 ? await this.#decodeWhole(bytes) : undefined;
    for (const [view, identity] of identities.entries()) {
      if (decoded === undefined) await this.fromFile(bytes, identity, into[view]!);
      else if (this.#recipe !== null) this.#followRecipe(this.#recipe, decoded, identity, into[view]!);
      else await this.#cropAndWarp(rawPipeline(decoded), decoded, identity, into[view]!);
    }
  }

  /** The whole picture, or undefined where cropping it after the conversion to 8-bit RGB would give other pixels than before it. */
  async #decodeWhole(bytes: Uint8Array): Promise<RgbImage | undefined> {
    if (this.#recipe === null && !(await isPlainRgb(openImage(bytes, this.#options).pipeline))) return undefined;
    return decodeRgb(bytes, this.#options);
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
    if (this.#recipe !== null) {
      this.#followRecipe(this.#recipe, source, identity, into);
      return;
    }
    this.#run(source, this.#draw(identity, source), into);
  }

  #followRecipe(recipe: RecipeTransform, source: RgbImage, identity: ViewIdentity, into: Uint8Array): void {
    into.set(recipe.apply(source, recipe.draw(identity, source)));
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
