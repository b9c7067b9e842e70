import { describe, expect, it } from 'vitest';
import { previewConfig } from '../../cli/augment/preview-config.ts';
import { type AugmentConfig, augmentSchema } from '../../common/config/augment-config.ts';
import { RECIPE_NAMES } from '../../common/config/augment-recipes.ts';
import { canonicalJson } from '../../common/config/canonical-json.ts';
import { CoveyError } from '../../common/errors.ts';
import { RecipeTransform } from '../../models/preprocess/recipe/recipe-transform.ts';
import { distinctViews, viewSpec } from '../../models/preprocess/recipe/view-plan.ts';
import { TrainTransform } from '../../models/preprocess/train-transform.ts';
import { picture } from '../support/datasets.ts';

const DRAWS = 4000;
const source = { width: 500, height: 375 };

function draws(augment: AugmentConfig, view: number) {
  const transform = new RecipeTransform({ imageSide: 32, seed: 9, augment });
  return Array.from({ length: DRAWS }, (_, sampleIndex) => transform.draw({ epoch: 1, sampleIndex, view }, source));
}

/** Within five standard deviations of a binomial: passes for the right probability, fails for one a few per cent off. */
function expectShare(hits: number, probability: number, of = DRAWS) {
  const tolerance = 5 * Math.sqrt((probability * (1 - probability)) / of);
  expect(Math.abs(hits / of - probability)).toBeLessThanOrEqual(tolerance + 1e-12);
}

/** From the papers' tables and codes, written here a second time: [area from, flip, jitter, grey, blur, solarise] per view. */
const PUBLISHED = {
  none: [[1, 0, 0, 0, 0, 0]],
  clip: [[0.9, 0, 0, 0, 0, 0]],
  simclr: [[0.08, 0.5, 0.8, 0.2, 0.5, 0]],
  'moco-v1': [[0.2, 0.5, 1, 0.2, 0, 0]],
  'moco-v2': [[0.2, 0.5, 0.8, 0.2, 0.5, 0]],
  'moco-v3': [
    [0.08, 0.5, 0.8, 0.2, 1, 0],
    [0.08, 0.5, 0.8, 0.2, 0.1, 0.2],
  ],
  byol: [
    [0.08, 0.5, 0.8, 0.2, 1, 0],
    [0.08, 0.5, 0.8, 0.2, 0.1, 0.2],
  ],
  mae: [[0.2, 0.5, 0, 0, 0, 0]],
} as const satisfies Record<(typeof RECIPE_NAMES)[number], readonly (readonly number[])[]>;

/** Largest changes: [brightness, contrast, saturation, hue]. */
const STRENGTHS = {
  simclr: [0.8, 0.8, 0.8, 0.2],
  'moco-v1': [0.4, 0.4, 0.4, 0.4],
  'moco-v2': [0.4, 0.4, 0.4, 0.1],
  'moco-v3': [0.4, 0.4, 0.2, 0.1],
  byol: [0.4, 0.4, 0.2, 0.1],
} as const;

describe('recipes', () => {
  it.each(RECIPE_NAMES)('%s strikes as often as published, in each view', (recipe) => {
    for (const [view, [area, flip, jitter, grey, blur, solarize]] of PUBLISHED[recipe].entries()) {
      const all = draws(augmentSchema.parse({ recipe }), view);
      const count = (test: (one: (typeof all)[number]) => boolean) => all.filter(test).length;
      expectShare(
        count((one) => one.flip),
        flip,
      );
      expectShare(
        count((one) => one.jitter.length > 0),
        jitter,
      );
      expectShare(
        count((one) => one.grayscale),
        grey,
      );
      expectShare(
        count((one) => one.blurSigma !== undefined),
        blur,
      );
      expectShare(
        count((one) => one.solarize),
        solarize,
      );
      const shares = all.map(({ crop }) => (crop.width * crop.height) / (source.width * source.height));
      // The centre square of `none` is 3/4 of a 4:3 picture.
      const low = recipe === 'none' ? 0.75 : area;
      // A rounded side moves the area by up to half a pixel's row.
      expect(Math.min(...shares)).toBeGreaterThan(low * 0.97);
      if (recipe !== 'none' && recipe !== 'clip') expect(Math.min(...shares)).toBeLessThan(low * 1.1);
      for (const { blurSigma } of all) {
        if (blurSigma !== undefined) expect(blurSigma >= 0.1 && blurSigma < 2).toBe(true);
      }
    }
  });

  it.each(Object.entries(STRENGTHS))(
    '%s jitters over its whole ranges, in all 24 orders alike',
    (recipe, strengths) => {
      const struck = draws(augmentSchema.parse({ recipe }), 0).filter((one) => one.jitter.length > 0);
      for (const [i, kind] of (['brightness', 'contrast', 'saturation', 'hue'] as const).entries()) {
        const amounts = struck.map((one) => one.jitter.find((step) => step.kind === kind)!.amount);
        const middle = kind === 'hue' ? 0 : 1;
        expect(Math.min(...amounts)).toBeGreaterThanOrEqual(middle - strengths[i]!);
        expect(Math.max(...amounts)).toBeLessThan(middle + strengths[i]!);
        expect(Math.min(...amounts)).toBeLessThan(middle - 0.98 * strengths[i]!);
        expect(Math.max(...amounts)).toBeGreaterThan(middle + 0.98 * strengths[i]!);
      }
      const orders = new Map<string, number>();
      for (const { jitter } of struck) {
        const order = jitter.map((step) => step.kind).join();
        orders.set(order, (orders.get(order) ?? 0) + 1);
      }
      expect(orders.size).toBe(24);
      for (const hits of orders.values()) expectShare(hits, 1 / 24, struck.length);
    },
  );

  it('takes the whole of crops a picture can have, at its edges too', () => {
    const crops = draws(augmentSchema.parse({ recipe: 'mae' }), 0).map((one) => one.crop);
    for (const { left, top, width, height } of crops) {
      expect([left, top, width, height].every(Number.isInteger)).toBe(true);
      expect(left >= 0 && top >= 0 && left + width <= source.width && top + height <= source.height).toBe(true);
      expect(width / height).toBeGreaterThan(0.74);
      expect(width / height).toBeLessThan(1.35);
    }
    const wide = crops.filter(({ width }) => width < source.width - 40);
    expect(Math.min(...wide.map(({ left }) => left))).toBeLessThan(3);
    expect(Math.max(...wide.map(({ left, width }) => left + width))).toBeGreaterThan(source.width - 3);
  });

  it('grows a crop even of a picture of one pixel or one row', () => {
    const transform = new RecipeTransform({
      imageSide: 8,
      seed: 1,
      augment: augmentSchema.parse({ recipe: 'simclr' }),
    });
    for (const [width, height] of [
      [1, 1],
      [1, 90],
      [90, 1],
    ] as const) {
      const image = { width, height, pixels: new Uint8Array(width * height * 3).fill(77) };
      const view = transform.draw({ epoch: 0, sampleIndex: 3, view: 0 }, image);
      expect(transform.apply(image, view).length).toBe(8 * 8 * 3);
    }
  });

  it('MoCo v1 is grey before it jitters, so that its greys stay grey', () => {
    const augment = augmentSchema.parse({ recipe: 'moco-v1', grayscale: 1 });
    const transform = new RecipeTransform({ imageSide: 16, seed: 1, augment });
    const pixels = Uint8Array.from({ length: 20 * 20 * 3 }, (_, i) => (i * 73) % 256);
    const image = { width: 20, height: 20, pixels };
    const out = transform.apply(image, transform.draw({ epoch: 0, sampleIndex: 0, view: 0 }, image));
    for (let i = 0; i < out.length; i += 3) expect(out[i] === out[i + 1] && out[i] === out[i + 2]).toBe(true);
    expect(new Set(out).size).toBeGreaterThan(20);
  });

  it('leaves the other draws as they were when one thing is switched on', () => {
    const plain = draws(augmentSchema.parse({ recipe: 'mae' }), 0);
    const more = draws(
      augmentSchema.parse({ recipe: 'mae', jitter: { hue: 0.5 }, blur: { probability: 1 }, solarize: {} }),
      0,
    );
    expect(more.map(({ crop, flip }) => [crop, flip])).toEqual(plain.map(({ crop, flip }) => [crop, flip]));
    expect(more.every((one) => one.jitter.length === 1)).toBe(true);
  });

  it('plans multi-crop: two full-size views, then small ones of small areas', () => {
    const multiCrop = { views: 6, side: 12, scale: [0.05, 0.14] };
    const augment = augmentSchema.parse({ recipe: 'byol', multiCrop, blur: { probability: [1, 0.1, 0.5] } });
    expect(distinctViews(augment)).toBe(8);
    const plan = Array.from({ length: 8 }, (_, view) => viewSpec(augment, 32, view));
    expect(plan.map((spec) => spec.side)).toEqual([32, 32, 12, 12, 12, 12, 12, 12]);
    expect(plan.map((spec) => spec.blurProbability)).toEqual([1, 0.1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]);
    expect(plan.map((spec) => spec.solarizeProbability)).toEqual([0, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2]);
    const transform = new RecipeTransform({ imageSide: 32, seed: 1, augment });
    for (const { crop } of draws(augment, 5)) expect(crop.width * crop.height).toBeLessThan(0.15 * 500 * 375);
    const image = { width: 40, height: 30, pixels: new Uint8Array(3600) };
    const view = transform.draw({ epoch: 0, sampleIndex: 0, view: 4 }, image);
    expect(transform.apply(image, view).length).toBe(12 * 12 * 3);
  });
});

describe('TrainTransform with a recipe', () => {
  it('makes the same view in any order, by any instance, and another for another key', async () => {
    const bytes = await picture(2, { width: 60, height: 50 });
    const options = { imageSide: 24, seed: 1, augment: augmentSchema.parse({ recipe: 'moco-v3' }), pixelsMax: 1e6 };
    const one = new TrainTransform({ ...options, decodedSide: 0 });
    const make = async (transform: TrainTransform, change: object) => {
      const into = new Uint8Array(24 * 24 * 3);
      await transform.fromFile(bytes, { epoch: 1, sampleIndex: 5, view: 0, ...change }, into);
      return into;
    };
    const keys = [{}, { epoch: 2 }, { sampleIndex: 6 }, { view: 1 }];
    const first = [];
    for (const key of keys) first.push(await make(one, key));
    const again = [];
    for (const key of keys.toReversed())
      again.unshift(await make(new TrainTransform({ ...options, decodedSide: 0 }), key));
    expect(again).toEqual(first);
    expect(new Set(first.map(String)).size).toBe(keys.length);
    const square = new TrainTransform({ ...options, decodedSide: 30 });
    const into = new Uint8Array(24 * 24 * 3);
    square.fromDecoded(await square.decode(bytes), { epoch: 1, sampleIndex: 5, view: 0 }, into);
    expect(new Set(into).size).toBeGreaterThan(20);
  });
});

describe('data.augment', () => {
  it('without a recipe is what it was', () => {
    expect(augmentSchema.parse(undefined)).toEqual({
      scale: [0.9, 1],
      ratio: [3 / 4, 4 / 3],
      shift: 0,
      zoom: [1, 1],
      rotateDegrees: 0,
      colorJitter: 0,
      hueJitter: 0,
      grayscale: 0,
      flip: 0,
    });
  });

  it.each(RECIPE_NAMES)('%s, once filled in, reads back as itself', (recipe) => {
    const config = augmentSchema.parse({ recipe, scale: [0.5, 0.6] });
    expect(canonicalJson(augmentSchema.parse(JSON.parse(JSON.stringify(config))))).toBe(canonicalJson(config));
    expect(config.scale).toEqual([0.5, 0.6]);
  });

  it('merges a section key by key', () => {
    const { jitter } = augmentSchema.parse({ recipe: 'simclr', jitter: { hue: 0 } });
    expect(jitter).toMatchObject({ probability: 0.8, brightness: 0.8, hue: 0 });
    expect(previewConfig('simclr', ['jitter.hue=0', 'blur.probability=[1, 0]'])).toMatchObject({
      jitter: { probability: 0.8, hue: 0 },
      blur: { method: 'gaussian', probability: [1, 0] },
    });
  });

  it.each([
    [{ recipe: 'simlcr' }, 'recipe', /Invalid option/],
    [{ blur: {} }, 'blur', /needs a recipe/],
    [{ multiCrop: { views: 2, side: 8, scale: [0, 1] } }, 'multiCrop', /needs a recipe/],
    [{ recipe: 'mae', shift: 0.1 }, 'shift', /own warp/],
    [{ recipe: 'mae', zoom: [0.9, 1] }, 'zoom', /own warp/],
    [{ recipe: 'byol', colorJitter: 0.4 }, 'colorJitter', /use jitter/],
    [{ recipe: 'byol', hueJitter: 0.4 }, 'hueJitter', /use jitter\.hue/],
    [{ recipe: 'clip', scale: [1, 0.5] }, 'scale', /must be \[low, high\]/],
    [{ recipe: 'simclr', blur: { sigma: [2, 0.1] } }, 'blur.sigma', /must be \[low, high\]/],
    [{ recipe: 'simclr', blur: { sigma: [0, 1] } }, 'blur.sigma.0', /Too small/],
    [{ recipe: 'simclr', solarize: { probability: 2 } }, 'solarize.probability', /Too big/],
    [{ recipe: 'simclr', jitter: { gamma: 1 } }, 'jitter', /Unrecognized key/],
    [{ recipe: 'simclr', jitter: 0.5 }, 'jitter', /expected object/],
  ])('refuses %j', (input, path, message) => {
    const issues = augmentSchema.safeParse(input).error?.issues ?? [];
    expect(issues.map((issue) => [issue.path.join('.'), issue.message])).toContainEqual([
      path,
      expect.stringMatching(message),
    ]);
  });

  it('names what is wrong with --set, with the key that was meant', () => {
    const refused = (sets: string[]) => {
      try {
        return previewConfig('byol', sets);
      } catch (thrown) {
        if (!CoveyError.is(thrown, 'CONFIG_INVALID')) throw thrown;
        return thrown.message;
      }
    };
    expect(refused(['jitter.hues=0.2'])).toMatch(/data\.augment\.jitter\.hues: unknown key; did you mean hue\?/);
    expect(refused(['grayscale=2'])).toMatch(/data\.augment\.grayscale/);
    expect(refused(['nonsense'])).toMatch(/not an assignment/);
  });
});
