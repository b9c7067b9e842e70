import type { AugmentConfig } from '../../../common/config/augment-config.ts';
import { blurAsPillow } from './box-blur.ts';
import type { ViewDraw } from './draw-view.ts';
import { blurGaussian, kernelRadius } from './gaussian-blur.ts';
import { grayscale } from './grayscale.ts';
import { adjustHue } from './hue.ts';
import { applyLevels, brightnessLevels, chainLevels, contrastLevels, type Levels, solarizeLevels } from './levels.ts';
import { meanLuma } from './luma.ts';
import { adjustSaturation } from './saturation.ts';

/**
 * Changes of colour and sharpness, in the order of the published codes: jitter and grey (MoCo v1: grey and jitter), blur,
 * solarise; 8 bits between any two, as PIL pictures have them. Keeps its scratch memory. Not to be shared by threads.
 */
export class Photometric {
  readonly #augment: AugmentConfig;
  #bytes = new Uint8Array(0);
  #floats = new Float32Array(0);
  /** Not yet applied: neighbours that depend on levels alone are one pass. */
  #levels: Levels | null = null;

  constructor(augment: AugmentConfig) {
    this.#augment = augment;
  }

  /** In place; uint8 RGB [side, side, 3] with side = view.spec.side. */
  run(pixels: Uint8Array, view: ViewDraw): void {
    const greyFirst = this.#augment.jitter?.afterGrayscale ?? false;
    this.#levels = null;
    if (view.grayscale && greyFirst) grayscale(pixels);
    this.#jitter(pixels, view);
    if (view.grayscale && !greyFirst) {
      this.#settle(pixels);
      grayscale(pixels);
    }
    if (view.blurSigma !== undefined) {
      this.#settle(pixels);
      this.#blur(pixels, view.spec.side, view.blurSigma);
    }
    if (view.solarize) this.#chain(solarizeLevels(this.#augment.solarize?.threshold ?? 128));
    this.#settle(pixels);
  }

  #jitter(pixels: Uint8Array, view: ViewDraw): void {
    for (const { kind, amount } of view.jitter) {
      if (kind === 'brightness') {
        this.#chain(brightnessLevels(amount));
      } else if (kind === 'contrast') {
        this.#chain(contrastLevels(amount, meanLuma(pixels, this.#levels)));
      } else {
        this.#settle(pixels);
        (kind === 'saturation' ? adjustSaturation : adjustHue)(pixels, amount);
      }
    }
  }

  #chain(levels: Levels): void {
    this.#levels = chainLevels(this.#levels, levels);
  }

  #settle(pixels: Uint8Array): void {
    if (this.#levels !== null) applyLevels(pixels, this.#levels);
    this.#levels = null;
  }

  #blur(pixels: Uint8Array, side: number, sigma: number): void {
    if (this.#augment.blur?.method === 'gaussian') {
      if (this.#floats.length < pixels.length) this.#floats = new Float32Array(pixels.length);
      blurGaussian(pixels, side, { sigma, radius: kernelRadius(side) }, this.#floats);
      return;
    }
    if (this.#bytes.length < pixels.length) this.#bytes = new Uint8Array(pixels.length);
    blurAsPillow(pixels, side, sigma, this.#bytes);
  }
}
