import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunConfig, runConfigSchema } from '../../common/config/run-config.ts';
import { RandomStream } from '../../common/random.ts';
import { type Engine, loadEngine, recordForward, type Tensor, tf } from '../../engine/index.ts';
import { backboneFlops } from '../../models/clip/step-flops.ts';
import { resolveModelConfig } from '../../models/model-config.ts';
import { maeFlops } from '../../models/vision/mae-cost.ts';
import { MaeModel } from '../../models/vision/mae-model.ts';
import { maskedCounts, patchMask } from '../../models/vision/patch-mask.ts';
import { ViewModel } from '../../models/vision/view-model.ts';
import { evaluatedModel } from '../../worker/eval/evaluated-model.ts';
import { checkTowerFor } from '../../worker/objectives/check-tower.ts';
import { MaeObjective } from '../../worker/objectives/mae.ts';
import { parameterSpecsFor } from '../../worker/objectives/trained-parameters.ts';
import { autoEngines } from '../support/engines.ts';

const PATCHES = 36;
const SEEDS = new Uint32Array(50).map((_, i) => new RandomStream('seed', i).uint32());
const VISION = {
  ...{ imageSize: 16, patchSize: 4, width: 32, layers: 2, headWidth: 16, mlpRatio: 4 },
  ...({ lnPre: false, patchBias: true, positions: 'sincos', layerNormEps: 1e-6, init: 'mae' } as const),
};
const DECODER = { width: 24, layers: 1, headWidth: 12 };

/** Places of each picture, in rows. */
const rows = (places: Int32Array, pictures: number) =>
  Array.from({ length: pictures }, (_, i) => {
    const count = places.length / pictures;
    return [...places.subarray(i * count, (i + 1) * count)];
  });

describe('the mask', () => {
  it('hides the same number of patches of every picture, as MAE counts, and each patch is either seen or hidden', () => {
    for (const [ratio, visibleCount] of [
      [0.75, 9],
      [0.5, 18],
      [0.6, 14],
      [0.97, 1],
    ] as const) {
      expect(maskedCounts(PATCHES, ratio)).toEqual({ visible: visibleCount, hidden: PATCHES - visibleCount });
      const mask = patchMask(SEEDS, PATCHES, ratio);
      const [visible, hidden] = [rows(mask.visible, SEEDS.length), rows(mask.hidden, SEEDS.length)];
      visible.forEach((seen, i) => {
        expect(seen).toHaveLength(visibleCount);
        const all = [...seen, ...hidden[i]!].sort((a, b) => a - b);
        expect(all).toEqual(Array.from({ length: PATCHES }, (_, n) => n));
      });
    }
    expect(maskedCounts(196, 0.75)).toEqual({ visible: 49, hidden: 147 });
  });

  it('is another for another seed, and a picture’s own: the same beside any others', () => {
    const masks = rows(patchMask(SEEDS, PATCHES, 0.75).hidden, SEEDS.length);
    expect(new Set(masks.map(String)).size).toBe(SEEDS.length);
    const some = patchMask(SEEDS.slice(20, 23), PATCHES, 0.75);
    expect(rows(some.hidden, 3)).toEqual(masks.slice(20, 23));
  });

  it('hides every patch as often as any other', () => {
    const seeds = new Uint32Array(4000).map((_, i) => new RandomStream('many', i).uint32());
    const counts = new Array<number>(PATCHES).fill(0);
    for (const place of patchMask(seeds, PATCHES, 0.75).hidden) counts[place]!++;
    // 3000 expected each, standard deviation 27.
    for (const count of counts) expect(Math.abs(count - 3000)).toBeLessThan(5 * 27);
  });
});

describe.each(autoEngines)('on engine %s', (name) => {
  const pictures = 4;
  const seeds = SEEDS.slice(0, pictures);
  let engine: Engine;
  let pixels: Tensor;
  beforeAll(async () => {
    engine = await loadEngine({ engine: name, threads: 1 });
    const random = new RandomStream('pixels');
    const values = new Float32Array(pictures * 16 * 16 * 3).map(() => random.normal());
    pixels = tf.tensor4d(values, [pictures, 16, 16, 3]);
  });
  afterAll(() => {
    pixels.dispose();
    engine.close();
  });

  const newModel = () => new MaeModel(VISION, DECODER, { seed: 3, precision: 'fp32', quickGelu: false });
  const objectiveOf = (model: MaeModel, normTarget = true) =>
    new MaeObjective({ maskRatio: 0.75, normTarget, decoder: DECODER }, { engine, model });
  const input = (x: Tensor, own: Uint32Array = seeds) => ({
    ...{ samples: own.length, pixels_BHWC: x, tokens: new Int32Array(0), labels: new Int32Array(0), seeds: own },
  });

  it.each([true, false])('has the slope of the loss along every parameter’s gradient, normTarget %s', (normTarget) => {
    const model = newModel();
    const objective = objectiveOf(model, normTarget);
    const lossSum = () => {
      const losses = tf.tidy(() => objective.encode(input(pixels))[0]!);
      const sum = losses.dataSync<'float32'>().reduce((total, loss) => total + loss, 0);
      losses.dispose();
      return sum;
    };
    const recording = recordForward(() => objective.encode(input(pixels)));
    const ones = tf.ones([pictures, 1]);
    const gradients = new Map<number, Float32Array>();
    recording.backward(
      [ones],
      model.parameters.map(({ variable }) => variable),
      (index, gradient) => gradients.set(index, Float32Array.from(gradient.dataSync())),
    );
    ones.dispose();
    expect(gradients.size).toBe(model.parameters.length);
    for (const [index, gradient] of gradients) {
      const { name: parameter, variable, shape } = model.parameters[index]!;
      const size = Math.hypot(...gradient);
      expect(size, parameter).toBeGreaterThan(1e-3);
      const before = Float32Array.from(variable.dataSync());
      // Far enough for fp32, near enough for a straight line.
      const step = 1e-2 / Math.max(1, size);
      const at = (sign: number) => {
        const moved = before.map((value, i) => value + (sign * step * gradient[i]!) / size);
        const tensor = tf.tensor(moved, [...shape]);
        variable.assign(tensor);
        tensor.dispose();
        return lossSum();
      };
      const slope = (at(1) - at(-1)) / (2 * step);
      const restored = tf.tensor(before, [...shape]);
      variable.assign(restored);
      restored.dispose();
      expect(Math.abs(slope / size - 1), parameter).toBeLessThan(0.02);
    }
    model.dispose();
  });

  it('does not look at what it is to predict', () => {
    const model = newModel();
    const { hidden } = patchMask(seeds, 16, 0.75);
    const values = Float32Array.from(pixels.dataSync());
    for (const [picture, places] of rows(hidden, pictures).entries()) {
      for (const place of places) {
        const corner = ((picture * 16 + 4 * Math.floor(place / 4)) * 16 + 4 * (place % 4)) * 3;
        for (let row = 0; row < 4; row++) values.fill(9, corner + row * 48, corner + row * 48 + 12);
      }
    }
    const other = tf.tensor4d(values, [pictures, 16, 16, 3]);
    const mask = patchMask(seeds, 16, 0.75);
    const [plain, overwritten] = [pixels, other].map((x) => {
      const predicted = model.predict(x, mask);
      const seen = Float32Array.from(predicted.dataSync());
      predicted.dispose();
      return seen;
    });
    expect(overwritten).toEqual(plain);
    const losses = [pixels, other].map((x) => tf.tidy(() => objectiveOf(model).encode(input(x))[0]!).dataSync()[0]);
    expect(losses[1]).not.toBe(losses[0]);
    tf.dispose(other);
    model.dispose();
  });

  it('has a picture’s loss whatever lies beside it, and the features of the tower without its decoder', () => {
    const model = newModel();
    const objective = objectiveOf(model);
    const losses = (x: Tensor, own: Uint32Array) => [...tf.tidy(() => objective.encode(input(x, own))[0]!).dataSync()];
    const all = losses(pixels, seeds);
    const last = tf.slice(pixels, [3, 0, 0, 0], [1, 16, 16, 3]);
    expect(losses(last, seeds.slice(3))[0]! / all[3]!).toBeCloseTo(1, 5);
    last.dispose();
    const tower = new ViewModel(
      VISION,
      { kind: 'classifier', classes: 2 },
      { seed: 3, precision: 'fp32', quickGelu: false },
    );
    const [ours, theirs] = [evaluatedModel(model).features(pixels), tower.features(pixels, { training: false })];
    expect(ours.dataSync()).toEqual(theirs.dataSync());
    tf.dispose([ours, theirs]);
    tower.dispose();
    model.dispose();
  });
});

describe('a run of MAE is refused before any worker starts', () => {
  const parse = (change: object = {}, train: object = {}) =>
    runConfigSchema.safeParse({
      ...{ run: 'r', store: 'file:///unused', objective: 'mae', model: 'tiny', data: { manifest: 'file:///unused' } },
      train: { steps: 1, globalBatch: 8, lanes: 2, ...train },
      ...change,
    });
  const problemsOf = (change: object, train?: object) =>
    (parse(change, train).error?.issues ?? []).map(({ path, message }) => `${path.join('.')} ${message}`);
  const check = (change: object) => () => {
    const config = parse(change).data as RunConfig;
    checkTowerFor(config, resolveModelConfig(config.model));
  };

  it('where it would see or predict nothing', () => {
    expect(problemsOf({})).toEqual([]);
    expect(problemsOf({ loss: { mae: { maskRatio: 0 } } })).toEqual([
      'loss.mae.maskRatio must be above 0: nothing would be left to predict',
    ]);
    expect(problemsOf({ loss: { mae: { maskRatio: 1 } } })).toEqual([
      'loss.mae.maskRatio must be below 1: the encoder would see no patch',
    ]);
    expect(check({})).not.toThrow();
    expect(check({ loss: { mae: { maskRatio: 0.95 } } })).toThrow(
      /loss.mae.maskRatio leaves 0 of 16 patches to see and 16 to predict, and needs one of each; is 0.95/,
    );
    const one = { preset: 'tiny', vision: { patchSize: 48 } };
    expect(check({ model: one })).toThrow(/leaves 0 of 1 patches/);
  });

  it('where the tower has no patches, or a pool that nothing trains', () => {
    const vision = (options: object) => ({ model: { preset: 'tiny', vision: options } });
    const resnet = { kind: 'resnet', depth: 18, stem: 'cifar', imageSize: 32 };
    expect(check(vision(resnet))).toThrow(/model.vision.kind must be vit with objective mae.*is resnet/);
    expect(() => parameterSpecsFor(parse().data!, resolveModelConfig('RN50'))).toThrow(/must be a ViT/);
    expect(check(vision({ pooling: 'map' }))).toThrow(/model.vision.pooling must be tok or avg with objective mae/);
    expect(check(vision({ pooling: 'avg', classToken: false }))).not.toThrow();
  });

  it('where patches are dropped as well, or the decoder’s sizes do not fit', () => {
    expect(problemsOf({}, { patchDropout: 0.5 })).toEqual([
      'train.patchDropout must be 0 with objective mae, which hides loss.mae.maskRatio of the patches itself; is 0.5',
    ]);
    expect(problemsOf({ loss: { mae: { decoder: { width: 100, headWidth: 32 } } } })).toEqual([
      'loss.mae.decoder.width must be a multiple of headWidth (32) and of 4, for its fixed positions; is 100',
    ]);
    expect(problemsOf({ loss: { mae: { decoder: { width: 66, headWidth: 33 } } } })).toHaveLength(1);
    expect(problemsOf({ objective: 'clip', loss: { mae: {} } })).toEqual([
      'loss.mae is for objective mae, objective is clip',
    ]);
  });
});

describe('the operations of a step', () => {
  it('are fewer in the encoder by what is hidden, and those of ViT-B/16 with MAE’s decoder', () => {
    const { vision } = resolveModelConfig('ViT-B-16');
    const decoder = { width: 512, layers: 8, headWidth: 32 };
    const { forward } = maeFlops(vision, { maskRatio: 0.75, decoder });
    // 50 tokens through 12 blocks of 12·768² weights, 197 through 8 of 12·512², and attention.
    const weights = 2 * (50 * 12 * 12 * 768 ** 2 + 197 * 8 * 12 * 512 ** 2);
    expect(forward / weights).toBeGreaterThan(1);
    expect(forward / weights).toBeLessThan(1.1);
    expect(forward).toBeLessThan(backboneFlops(vision, 1).forward);
  });
});
