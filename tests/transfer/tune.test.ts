import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Engine, loadEngine, tf } from '../../engine/index.ts';
import { fitLogistic, scores } from '../../models/linear/logistic-regression.ts';
import type { AdapterOptions } from '../../transfer/adapters/adapter.ts';
import { splitByClass } from '../../transfer/data/labelled-set.ts';
import { labelledFeatures } from '../../transfer/features/extract-features.ts';
import { TransferNetwork } from '../../transfer/network.ts';
import { evaluateNetwork } from '../../transfer/tune/evaluate.ts';
import { type TuneProgress, tune } from '../../transfer/tune/tune.ts';
import { type TuneRecipe, tuneRecipeSchema } from '../../transfer/tune/tune-recipe.ts';
import { interpolated, wiseCurve } from '../../transfer/tune/wise-ft.ts';
import { temporaryFolder } from '../support/datasets.ts';
import { type LabelledPictures, labelledPictures } from './labelled-pictures.ts';
import { smallBackbone } from './small-backbone.ts';

let engine: Engine;
let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let data: LabelledPictures;
beforeAll(async () => {
  engine = await loadEngine({ engine: 'auto', device: 'cpu', threads: 1 });
  folder = await temporaryFolder();
  data = await labelledPictures(folder.path, 8);
});
afterAll(async () => {
  await data.close();
  engine.close();
  await folder.remove();
});

const recipe = (own: object): TuneRecipe =>
  tuneRecipeSchema.parse({ steps: 8, batch: 12, lr: 2e-3, evaluateEverySteps: 4, ...own });

const newNetwork = (adapter?: AdapterOptions) =>
  new TransferNetwork(smallBackbone(), { classes: 3, seed: 5, precision: 'fp32', ...(adapter ? { adapter } : {}) });

function modules(network: TransferNetwork) {
  const { chosen: validation, rest: train } = splitByClass(data.set.samples, 0.25, 1);
  return { engine, network, pictures: data.pictures, train, validation, classes: 3 };
}

function changedNames(network: TransferNetwork, before: ReturnType<TransferNetwork['read']>): string[] {
  const isSame = (a: Float32Array, b: Float32Array) => Buffer.from(a.buffer).equals(Buffer.from(b.buffer));
  return [...network.read()]
    .filter(([name, { values }]) => !isSame(values, before.get(name)!.values))
    .map(([name]) => name);
}

const LORA: AdapterOptions = { kind: 'lora', rank: 2, alpha: 2, targets: 'attention' };
const BOTTLENECK: AdapterOptions = { kind: 'bottleneck', width: 4 };

describe('fine-tuning', () => {
  it.each([
    ['the head alone', recipe({ method: 'head' }), undefined, /^head\./],
    ['LoRA', recipe({ method: 'adapter', adapter: LORA }), LORA, /^(head|adapter)\./],
    ['bottleneck adapters', recipe({ method: 'adapter', adapter: BOTTLENECK }), BOTTLENECK, /^(head|adapter)\.|\.ln_/],
    [
      'the last two groups',
      recipe({ unlockedGroups: 2 }),
      undefined,
      /^(head\.|visual\.ln_post|visual\.transformer\.resblocks\.1\.|visual\.ln_post)/,
    ],
  ])('leaves what is frozen bit for bit as it was: %s', async (_, chosen, adapter, trained) => {
    const tensors = tf.memory().numTensors;
    const network = newNetwork(adapter);
    const before = network.read();
    await tune(chosen, modules(network));
    const changed = changedNames(network, before);
    expect(changed.filter((name) => !trained.test(name))).toEqual([]);
    expect(changed).toContain('head.weight');
    if (adapter !== undefined) expect(changed.some((name) => name.startsWith('adapter.'))).toBe(true);
    network.dispose();
    expect(tf.memory().numTensors).toBe(tensors);
  });

  it('learns to tell colours apart, and ends with the weights of the best evaluation', async () => {
    const network = newNetwork();
    const result = await tune(recipe({ steps: 40, labelSmoothing: 0.1 }), modules(network));
    expect(result.history.at(-1)!.trainLoss).toBeLessThan(result.history[0]!.trainLoss);
    expect(result.best.accuracy).toBe(Math.max(...result.history.map(({ accuracy }) => accuracy)));
    expect(result.best.accuracy).toBeGreaterThan(0.8);
    const again = await evaluateNetwork(modules(network).validation, 3, modules(network));
    expect(again.accuracy).toBe(result.best.accuracy);
    expect(again.crossEntropy).toBe(result.best.crossEntropy);
    network.dispose();
  });

  it('goes on after an interruption to the same bits, also out of the phase that trains the head alone', async () => {
    const chosen = recipe({ steps: 9, evaluateEverySteps: 3, headSteps: 4, mixup: 0.4 });
    const whole = newNetwork();
    const kept: TuneProgress[] = [];
    const expected = await tune(chosen, modules(whole), {
      onProgress: async (progress) => {
        kept.push(progress);
      },
    });
    for (const progress of kept.slice(0, 2)) {
      const resumed = newNetwork();
      const result = await tune(chosen, modules(resumed), {}, progress);
      expect(result).toEqual(expected);
      expect(changedNames(resumed, whole.read())).toEqual([]);
      resumed.dispose();
    }
    whole.dispose();
  });

  it('trains another network with mixup, which draws per sample and epoch', async () => {
    const [plain, mixedUp] = [newNetwork(), newNetwork()];
    const before = tf.memory().numTensors;
    await tune(recipe({ steps: 4 }), modules(plain));
    await tune(recipe({ steps: 4, mixup: 1 }), modules(mixedUp));
    expect(tf.memory().numTensors).toBe(before);
    expect(changedNames(mixedUp, plain.read())).toContain('head.weight');
    plain.dispose();
    mixedUp.dispose();
  });

  it('stops when validation has not improved for `patience` evaluations', async () => {
    const network = newNetwork();
    // A rate this small changes nothing that could be seen, so the first evaluation stays the best.
    const chosen = recipe({ method: 'head', lr: 1e-30, weightDecay: 0, steps: 40, evaluateEverySteps: 2, patience: 2 });
    const result = await tune(chosen, modules(network));
    expect(result.stoppedEarly).toBe(true);
    expect(result.steps).toBe(6);
    expect(result.best.step).toBe(2);
    network.dispose();
  });

  it('gives the layers of a deeper backbone smaller rates, and the head the whole one', async () => {
    const network = newNetwork();
    const { FineTuner } = await import('../../transfer/tune/fine-tuner.ts');
    const tuner = new FineTuner(recipe({ layerDecay: 0.5, backboneLrScale: 0.1 }), modules(network));
    const scaleOf = (name: string) => tuner.parameters.find((one) => one.name === name)!.rule.lrScale;
    expect(scaleOf('head.weight')).toBe(1);
    expect(scaleOf('visual.transformer.resblocks.1.ln_1.weight')).toBeCloseTo(0.05, 12);
    expect(scaleOf('visual.transformer.resblocks.0.ln_1.weight')).toBeCloseTo(0.025, 12);
    expect(scaleOf('visual.conv1.weight')).toBeCloseTo(0.0125, 12);
    tuner.dispose();
    network.dispose();
  });
});

describe('a linear probe as head', () => {
  it('classifies as the probe does', async () => {
    const network = newNetwork();
    const { train, validation, pictures } = modules(network);
    const features = await labelledFeatures(train, { engine, network, pictures });
    const { classifier } = fitLogistic(features, { classes: 3, l2: 1e-2 });
    network.setHead(classifier);
    const probed = scores(classifier, await labelledFeatures(validation, { engine, network, pictures }));
    const evaluated = await evaluateNetwork(validation, 3, { engine, network, pictures });
    expect(evaluated.accuracy).toBe(probed.accuracy);
    expect(evaluated.crossEntropy).toBeCloseTo(probed.crossEntropy, 4);
    network.dispose();
  });
});

describe('WiSE-FT', () => {
  it('has the weights before and after at its ends, and the mean in the middle', async () => {
    const network = newNetwork();
    const from = network.read();
    await tune(recipe({ steps: 4 }), modules(network));
    const to = network.read();
    const name = 'visual.conv1.weight';
    const middle = interpolated(from, to, 0.5).get(name)!.values;
    middle.forEach((value, i) => {
      expect(value).toBeCloseTo((from.get(name)!.values[i]! + to.get(name)!.values[i]!) / 2, 6);
    });
    const { validation } = modules(network);
    const curve = await wiseCurve({ from, to }, validation, 3, modules(network));
    expect(curve.map(({ alpha }) => alpha)).toEqual([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]);
    expect(changedNames(network, to)).toEqual([]);
    const after = await evaluateNetwork(validation, 3, modules(network));
    expect(curve.at(-1)!.evaluation).toEqual(after);
    network.dispose();
  });
});
