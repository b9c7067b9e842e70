import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RandomStream } from '../../common/random.ts';
import { conv2d, type Engine, loadEngine, type Tensor, type Tensor4D, tf } from '../../engine/index.ts';
import type { AdapterOptions } from '../../transfer/adapters/adapter.ts';
import { adaptedNetwork, adapterFileOf } from '../../transfer/adapters/adapter-file.ts';
import { newAdapter } from '../../transfer/adapters/new-adapter.ts';
import type { Backbone } from '../../transfer/backbone.ts';
import { TransferNetwork } from '../../transfer/network.ts';
import { type TuneProgress, tune } from '../../transfer/tune/tune.ts';
import { tuneRecipeSchema } from '../../transfer/tune/tune-recipe.ts';
import { temporaryFolder } from '../support/datasets.ts';
import { type LabelledPictures, labelledPictures } from './labelled-pictures.ts';
import { randomPixels, smallResnet } from './small-backbone.ts';

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

const PLACEMENTS = ['series', 'parallel'] as const;

const make = (source: Backbone, adapter?: AdapterOptions) =>
  new TransferNetwork(source, { classes: 3, seed: 1, precision: 'fp32', ...(adapter ? { adapter } : {}) });

function features(network: TransferNetwork): Float32Array {
  return tf.tidy(() => network.features(randomPixels(3)).dataSync<'float32'>()) as unknown as Float32Array;
}

function random(shape: number[], seed: number): Tensor {
  const stream = new RandomStream('random', seed);
  return tf.tensor(
    Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => stream.normal(0, 0.5)),
    shape,
  );
}

const recipe = (placement: (typeof PLACEMENTS)[number]) =>
  tuneRecipeSchema.parse({
    method: 'adapter',
    adapter: { kind: 'conv', placement },
    steps: 4,
    batch: 8,
    evaluateEverySteps: 2,
    batchNorm: 'batch',
  });

function modules(network: TransferNetwork) {
  const samples = data.set.samples;
  return {
    engine,
    network,
    pictures: data.pictures,
    train: samples.slice(6),
    validation: samples.slice(0, 6),
    classes: 3,
  };
}

describe.each(PLACEMENTS)('convolutional adapters in %s', (placement) => {
  const options: AdapterOptions = { kind: 'conv', placement };

  it('are the filter that the extra 1×1 layer amounts to, also where the stride is 2', () => {
    tf.tidy(() => {
      const name = 'visual.layer2.0.conv1.weight';
      const specs = [{ name, shape: [6, 4, 3, 3], initial: { kind: 'constant', value: 0 } as const }];
      const adapter = newAdapter(options, specs);
      expect(adapter.specs.map(({ shape }) => shape)).toEqual([placement === 'series' ? [6, 6] : [6, 4]]);
      const alpha = random([...adapter.specs[0]!.shape], 1);
      const filter = random([6, 4, 3, 3], 2) as Tensor4D;
      const x = random([2, 8, 8, 4], 3) as Tensor4D;
      const folded = adapter.weight(name, filter, <T extends Tensor>() => alpha as T) as Tensor4D;
      const y = conv2d(x, filter, { stride: 2, padding: 1 });
      const kernel = alpha.reshape([...alpha.shape, 1, 1]) as Tensor4D;
      const extra =
        placement === 'series'
          ? conv2d(y, kernel, { stride: 1, padding: 0 })
          : conv2d(x, kernel, { stride: 2, padding: 0 });
      const difference = tf.max(tf.abs(tf.sub(conv2d(x, folded, { stride: 2, padding: 1 }), tf.add(y, extra))));
      expect(difference.dataSync()[0]).toBeLessThan(1e-5);
    });
  });

  it('begin as the identity bit for bit, train only what is theirs, and fold within 1e-5', async () => {
    const before = tf.memory().numTensors;
    const source = smallResnet();
    const plain = make(source);
    const network = make(source, options);
    expect(features(network)).toEqual(features(plain));
    await tune(recipe(placement), modules(network));
    const changed = [...network.read()].filter(([name, { values }]) => {
      const was = source.weights.get(name)?.values;
      return was === undefined || !Buffer.from(values.buffer).equals(Buffer.from(was.buffer));
    });
    const names = changed.map(([name]) => name);
    expect(names.filter((name) => name.startsWith('visual.') && !/(bn\d|downsample\.1)\./.test(name))).toEqual([]);
    expect(names).toContain('visual.bn1.running_mean');
    expect(changed.some(([name, { values }]) => name.startsWith('adapter.') && values.some((v) => v !== 0))).toBe(true);
    const folded = make(network.mergedBackbone('folded'));
    const [a, b] = [features(network), features(folded)];
    expect(a.reduce((worst, value, i) => Math.max(worst, Math.abs(value - b[i]!)), 0)).toBeLessThan(1e-5);
    for (const one of [plain, network, folded]) one.dispose();
    expect(tf.memory().numTensors).toBe(before);
  });

  it('keep their statistics through an interruption: the last step has the bits it would have had', async () => {
    const kept: TuneProgress[] = [];
    const last = (network: TransferNetwork) => ({ ...modules(network), validation: [] });
    const [whole, resumed] = [make(smallResnet(), options), make(smallResnet(), options)];
    const onProgress = async (progress: TuneProgress) => void kept.push(progress);
    await tune(recipe(placement), last(whole), { onProgress });
    await tune(recipe(placement), last(resumed), {}, kept[0]);
    expect(kept[0]!.tuner.step).toBe(2);
    expect(resumed.read()).toEqual(whole.read());
    whole.dispose();
    resumed.dispose();
  });
});

it('convolutional adapters stand beside each other on one backbone, each with the norms and statistics of its own pictures', async () => {
  const before = tf.memory().numTensors;
  const source = smallResnet();
  const tasks = [];
  for (const placement of PLACEMENTS) {
    const options: AdapterOptions = { kind: 'conv', placement };
    const trained = make(source, options);
    await tune(recipe(placement), modules(trained));
    tasks.push({ file: adapterFileOf(trained, options, ['a', 'b', 'c']), expected: features(trained) });
    trained.dispose();
  }
  const bare = new TransferNetwork(source, { seed: 0, precision: 'fp32' });
  const plain = features(bare);
  const networks = tasks.map(({ file }) => adaptedNetwork(file, source, bare));
  for (const [i, network] of networks.entries()) expect(features(network)).toEqual(tasks[i]!.expected);
  expect(tasks[0]!.expected).not.toEqual(tasks[1]!.expected);
  expect(features(bare)).toEqual(plain);
  for (const network of [...networks, bare]) network.dispose();
  expect(tf.memory().numTensors).toBe(before);
});
