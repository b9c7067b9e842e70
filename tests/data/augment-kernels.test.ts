import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { augmentSchema } from '../../common/config/augment-config.ts';
import { resizeAsPil } from '../../models/preprocess/pil-resize.ts';
import { blurAsPillow } from '../../models/preprocess/recipe/box-blur.ts';
import { flipHorizontally } from '../../models/preprocess/recipe/flip.ts';
import { blurGaussian, kernelRadius } from '../../models/preprocess/recipe/gaussian-blur.ts';
import { grayscale } from '../../models/preprocess/recipe/grayscale.ts';
import { adjustHue } from '../../models/preprocess/recipe/hue.ts';
import {
  applyLevels,
  brightnessLevels,
  chainLevels,
  contrastLevels,
  solarizeLevels,
} from '../../models/preprocess/recipe/levels.ts';
import { meanLuma } from '../../models/preprocess/recipe/luma.ts';
import { RecipeTransform } from '../../models/preprocess/recipe/recipe-transform.ts';
import { adjustSaturation } from '../../models/preprocess/recipe/saturation.ts';
import { viewSpec } from '../../models/preprocess/recipe/view-plan.ts';

// Written by augment-reference.py beside it, with torchvision and Pillow.
const reference = JSON.parse(readFileSync(new URL('../support/augment-reference.json', import.meta.url), 'utf8')) as {
  side: number;
  square: string;
  wide: string;
  cases: Record<string, string>;
};
const bytes = (text: string) => Uint8Array.from(Buffer.from(text, 'base64'));
const { side } = reference;
const wide = { pixels: bytes(reference.wide), width: 37, height: 29 };
const names = Object.keys(reference.cases);

/** What covey makes of the reference's picture for a case's name. */
function made(name: string): Uint8Array {
  const [kind = '', first = '', second = ''] = name.split(' ');
  const pixels = bytes(reference.square);
  const amount = Number(first);
  switch (kind) {
    case 'brightness':
      applyLevels(pixels, brightnessLevels(amount));
      return pixels;
    case 'contrast':
      applyLevels(pixels, contrastLevels(amount, meanLuma(pixels, null)));
      return pixels;
    case 'saturation':
      adjustSaturation(pixels, amount);
      return pixels;
    case 'hue':
      adjustHue(pixels, amount);
      return pixels;
    case 'grayscale':
      grayscale(pixels);
      return pixels;
    case 'solarize':
      applyLevels(pixels, solarizeLevels(amount));
      return pixels;
    case 'flip':
      flipHorizontally(pixels, side);
      return pixels;
    case 'pillow':
      blurAsPillow(pixels, side, amount, new Uint8Array(pixels.length));
      return pixels;
    case 'gaussian':
      blurGaussian(pixels, side, { sigma: amount, radius: Number(second) }, new Float32Array(pixels.length));
      return pixels;
    case 'crop': {
      const box = { left: 5, top: 3, width: 28, height: 21 };
      const transform = new RecipeTransform({
        imageSide: side,
        seed: 0,
        augment: augmentSchema.parse({ recipe: 'none', interpolation: first }),
      });
      const view = transform.draw({ epoch: 0, sampleIndex: 0, view: 0 }, wide);
      return transform.apply(wide, { ...view, crop: box });
    }
    default:
      throw new Error(`no case ${name}`);
  }
}

describe('augmentation kernels against torchvision and Pillow', () => {
  it.each(names.filter((name) => name !== 'chain' && !name.startsWith('gaussian')))('%s, to the bit', (name) => {
    expect(made(name)).toEqual(bytes(reference.cases[name]!));
  });

  it.each(names.filter((name) => name.startsWith('gaussian')))('%s, to a level where single precision ties', (name) => {
    const expected = bytes(reference.cases[name]!);
    const off = made(name).map((value, i) => Math.abs(value - expected[i]!));
    expect(Math.max(...off)).toBeLessThanOrEqual(1);
    expect(off.filter((difference) => difference > 0).length).toBeLessThanOrEqual(2);
  });

  it('a chain of all of them, with levels fused, to the bit', () => {
    const augment = augmentSchema.parse({ recipe: 'moco-v3' });
    const view = {
      spec: viewSpec(augment, side, 1),
      crop: { left: 5, top: 3, width: 28, height: 21 },
      flip: true,
      jitter: [
        { kind: 'saturation', amount: 0.9 },
        { kind: 'hue', amount: -0.06 },
        { kind: 'brightness', amount: 1.3 },
        { kind: 'contrast', amount: 0.8 },
      ],
      grayscale: false,
      blurSigma: 0.8,
      solarize: true,
    } as const;
    const transform = new RecipeTransform({ imageSide: side, seed: 0, augment });
    expect(transform.apply(wide, view)).toEqual(bytes(reference.cases['chain']!));
    // Scratch memory is kept: a second picture must not see the first.
    expect(transform.apply(wide, view)).toEqual(bytes(reference.cases['chain']!));
  });
});

describe('augmentation kernels against their formulas', () => {
  it('mixes towards black, mean grey and the pixel’s own grey', () => {
    const pixel = [200, 100, 50] as const;
    // BT.601: 0.299·200 + 0.587·100 + 0.114·50 = 124.2.
    const grey = 124;
    const brightness = Uint8Array.from(pixel);
    applyLevels(brightness, brightnessLevels(1.5));
    expect([...brightness]).toEqual([255, 150, 75]);
    const contrast = Uint8Array.from(pixel);
    applyLevels(contrast, contrastLevels(0.5, meanLuma(contrast, null)));
    expect([...contrast]).toEqual(pixel.map((value) => Math.floor(grey + 0.5 * (value - grey))));
    const saturation = Uint8Array.from(pixel);
    adjustSaturation(saturation, 0.25);
    expect([...saturation]).toEqual(pixel.map((value) => Math.floor(grey + 0.25 * (value - grey))));
  });

  it('turns red to green by a third and to cyan by a half', () => {
    const turned = (turns: number) => {
      const red = Uint8Array.of(255, 0, 0);
      adjustHue(red, turns);
      return [...red];
    };
    expect(turned(1 / 3)).toEqual([0, 255, 0]);
    // int(0.5·255) is 127 of 255, a hair before cyan: 127·6/255 = 2.988.
    expect(turned(0.5)).toEqual([0, 255, 252]);
  });

  it('inverts from the threshold on', () => {
    const levels = solarizeLevels(128);
    expect([levels[0], levels[127], levels[128], levels[255]]).toEqual([0, 127, 127, 0]);
    expect(chainLevels(null, levels)).toBe(levels);
    expect(chainLevels(brightnessLevels(2), levels)[100]).toBe(255 - 200);
  });

  it('spreads a point as exp(−(x² + y²)/2σ²) over the window’s sum', () => {
    const at = 10;
    const sigma = 1.1;
    const radius = 4;
    const pixels = new Uint8Array(21 * 21 * 3);
    pixels.fill(255, 3 * (at * 21 + at), 3 * (at * 21 + at) + 3);
    blurGaussian(pixels, 21, { sigma, radius }, new Float32Array(pixels.length));
    let sum = 0;
    for (let x = -radius; x <= radius; x++) sum += Math.exp((-x * x) / (2 * sigma ** 2));
    for (let y = -radius; y <= radius; y++) {
      for (let x = -radius; x <= radius; x++) {
        const expected = (255 * Math.exp(-(x * x + y * y) / (2 * sigma ** 2))) / sum ** 2;
        expect(pixels[3 * ((at + y) * 21 + at + x)]).toBe(Math.round(expected));
      }
    }
  });

  it('has SimCLR’s 23 taps at 224', () => {
    expect(2 * kernelRadius(224) + 1).toBe(23);
  });

  it('averages pairs when it halves by bilinear, which then is a triangle of four', () => {
    const line = { pixels: Uint8Array.of(0, 0, 0, 80, 80, 80, 160, 160, 160, 240, 240, 240), width: 4, height: 1 };
    // Weights 1/8, 3/8, 3/8, 1/8; at the edge the three that exist, over 7/8.
    const left = (0 * 3 + 80 * 3 + 160) / 7;
    const out = resizeAsPil(line, 2, 1, { filter: 'bilinear' });
    expect([out[0], out[3]]).toEqual([Math.round(left), Math.round(240 - left)]);
  });
});
