import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { augmentSchema } from '../../common/config/augment-config.ts';
import { CoveyError } from '../../common/errors.ts';
import { type Engine, loadEngine, tf } from '../../engine/index.ts';
import type { Backbone } from '../../transfer/backbone.ts';
import { splitByClass } from '../../transfer/data/labelled-set.ts';
import { PictureSource } from '../../transfer/data/picture-source.ts';
import { type AdaptModules, adapt } from '../../transfer/domain/adapt.ts';
import { type DomainMethod, domainRecipeSchema } from '../../transfer/domain/domain-recipe.ts';
import { TransferNetwork } from '../../transfer/network.ts';
import { BatchPlan } from '../../transfer/tune/batch-plan.ts';
import { readProgress, writeProgress } from '../../transfer/tune/progress-file.ts';
import { type TuneProgress, tune } from '../../transfer/tune/tune.ts';
import { temporaryFolder } from '../support/datasets.ts';
import { type LabelledPictures, labelledPictures } from './labelled-pictures.ts';
import { SMALL_VISION, smallBackbone, smallResnet } from './small-backbone.ts';

let engine: Engine;
let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let source: LabelledPictures;
let target: LabelledPictures;
beforeAll(async () => {
  engine = await loadEngine({ engine: 'auto', device: 'cpu', threads: 1 });
  folder = await temporaryFolder();
  source = await labelledPictures(path.join(folder.path, 'source'), 8);
  target = await labelledPictures(path.join(folder.path, 'target'), 6, 'striped');
});
afterAll(async () => {
  await source.close();
  await target.close();
  engine.close();
  await folder.remove();
});

const newNetwork = (backbone: Backbone) => new TransferNetwork(backbone, { classes: 3, seed: 5, precision: 'fp32' });

function recipe(method: DomainMethod, own: object = {}) {
  const tuned = { steps: 6, batch: 6, lr: 2e-3, evaluateEverySteps: 2, batchNorm: 'batch', ...own };
  return domainRecipeSchema.parse({ method, weight: 1, reversal: {}, discriminatorWidth: 16, tune: tuned });
}

function modules(network: TransferNetwork): AdaptModules {
  const { chosen: validation, rest: train } = splitByClass(source.set.samples, 0.25, 1);
  const unlabelled = target.set.samples.map(({ located }) => ({ located }));
  return {
    engine,
    network,
    classes: 3,
    source: { train, validation, pictures: source.pictures },
    target: { train: unlabelled.slice(6), validation: unlabelled.slice(0, 6), pictures: target.pictures },
  };
}

/** Trains and returns every weight with what was kept on the way. */
async function adapted(backbone: Backbone, method: DomainMethod, own: object = {}, change = (m: AdaptModules) => m) {
  const network = newNetwork(backbone);
  const kept: TuneProgress[] = [];
  const onProgress = async (progress: TuneProgress) => void kept.push(progress);
  const result = await adapt(recipe(method, own), change(modules(network)), { onProgress });
  const weights = network.read();
  network.dispose();
  return { result, weights, kept };
}

describe('adaptation to a domain without labels', () => {
  it.each([
    ['dann', 'ViT'],
    ['coral', 'ViT'],
    ['mmd', 'ViT'],
    ['none', 'ViT'],
    ['dann', 'ResNet'],
    ['coral', 'ResNet'],
  ] as const)('goes on after an interruption to the same bits: %s, %s', async (method, kind) => {
    const before = tf.memory().numTensors;
    const backbone = kind === 'ViT' ? smallBackbone() : smallResnet();
    const whole = await adapted(backbone, method, { headSteps: 1 });
    const file = path.join(folder.path, `${method}-${kind}.safetensors`);
    await writeProgress(file, whole.kept[1]!);
    const network = newNetwork(backbone);
    const resumed: TuneProgress[] = [];
    const result = await adapt(
      recipe(method, { headSteps: 1 }),
      modules(network),
      { onProgress: async (progress) => void resumed.push(progress) },
      await readProgress(file),
    );
    expect(result).toEqual(whole.result);
    expect(network.read()).toEqual(whole.weights);
    // The last step's state, of discriminator and optimiser as well.
    expect(resumed).toHaveLength(1);
    expect(resumed[0]!.tuner).toEqual(whole.kept[2]!.tuner);
    const own = [...resumed[0]!.tuner.tensors.keys()].filter((name) => name.startsWith('domain.'));
    expect(own.length > 0).toBe(method === 'dann');
    network.dispose();
    expect(tf.memory().numTensors).toBe(before);
  });

  it.each(['dann', 'mmd'] as const)(
    'never reads a label of the target, in training or in choosing: %s',
    async (method) => {
      const { weights, result } = await adapted(smallBackbone(), method);
      // Reading any of them would throw.
      const locked = await adapted(smallBackbone(), method, {}, ({ target: own, ...rest }) => {
        const lock = ({ located }: { located: (typeof target.set.samples)[number]['located'] }) => {
          const record = { ...located.record };
          for (const key of ['label', 'meta', 'captions'] as const) {
            Object.defineProperty(record, key, {
              get: () => {
                throw new CoveyError('INTERNAL', `the target's ${key} was read`);
              },
            });
          }
          return { located: { ...located, record } };
        };
        return { ...rest, target: { ...own, train: own.train.map(lock), validation: own.validation.map(lock) } };
      });
      expect(locked.weights).toEqual(weights);
      expect(locked.result).toEqual(result);
    },
  );

  it('without a method is fine-tuning on the source, and the target is not looked at', async () => {
    const nothing = new PictureSource(
      { imageSide: SMALL_VISION.imageSize, pixelsMax: 1, augment: augmentSchema.parse({}), seed: 0 },
      { cache: target.cache },
    );
    const { weights, result } = await adapted(smallBackbone(), 'none', {}, ({ target: own, ...rest }) => ({
      ...rest,
      target: { ...own, pictures: nothing },
    }));
    const network = newNetwork(smallBackbone());
    const { train, validation, pictures } = modules(network).source;
    const tuned = await tune(recipe('none').tune, { engine, network, pictures, train, validation, classes: 3 });
    expect(tuned).toEqual(result);
    expect(network.read()).toEqual(weights);
    network.dispose();
  });

  it('measures what happens: λ, the adversary, and what chose the weights', async () => {
    const { result } = await adapted(smallBackbone(), 'dann');
    const last = result.history.at(-1)!;
    expect(Object.keys(last.measures!).sort()).toEqual(
      ['adversaryAccuracy', 'alignmentLoss', 'reversal', 'targetEntropy', 'targetInformation'].sort(),
    );
    const lambda = (p: number) => 2 / (1 + Math.exp(-10 * p)) - 1;
    expect(last.measures!['reversal']).toBeCloseTo((lambda(4 / 6) + lambda(5 / 6)) / 2, 12);
    expect(last.score).toBeCloseTo(last.measures!['targetInformation']! - last.crossEntropy, 12);
    expect(result.best.score).toBe(Math.max(...result.history.map(({ score }) => score!)));
  });

  it('draws the features of the domains together where nothing else is asked of them', async () => {
    const lossOf = async (weight: number) => {
      const network = newNetwork(smallBackbone());
      const own = { ...recipe('coral', { steps: 40, evaluateEverySteps: 10 }), weight };
      const { history } = await adapt(own, modules(network));
      network.dispose();
      return history.at(-1)!.measures!['alignmentLoss']!;
    };
    expect(await lossOf(100)).toBeLessThan(0.5 * (await lossOf(1e-6)));
  });

  it('works in bf16, with mixup and with SGD on DANN’s schedule, and learns', async () => {
    const own = { steps: 30, evaluateEverySteps: 30, mixup: 0.2, optimizer: 'sgd', schedule: 'dann', lr: 0.05 };
    const network = new TransferNetwork(smallBackbone(), { classes: 3, seed: 5, precision: 'bf16' });
    const result = await adapt(recipe('dann', { ...own, precision: 'bf16' }), modules(network));
    expect(result.best.accuracy).toBeGreaterThan(0.6);
    network.dispose();
  });

  it('meets the target in an order of its own: batches of like datasets do not go in step', () => {
    const { samples } = source.set;
    const plan = (stream?: string) => new BatchPlan(samples, { seed: 1, batch: 12, ...(stream ? { stream } : {}) });
    const order = (stream?: string) =>
      plan(stream)
        .batchOf(0)
        .map(({ sample }) => sample.located.sampleIndex);
    expect(order('target')).not.toEqual(order());
    expect(order('target')).toEqual(order('target'));
  });

  it('refuses a batch without spread', async () => {
    await expect(adapted(smallBackbone(), 'coral', { batch: 1 })).rejects.toThrow(/has no spread/);
  });
});
