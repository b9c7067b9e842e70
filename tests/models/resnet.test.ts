import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadEngine, recordForward, type Tensor2D, type Tensor4D, tf } from '../../engine/index.ts';
import { elementCount } from '../../models/clip/parameter-shapes.ts';
import { ResNet } from '../../models/vision/resnet.ts';
import { featureWidth, type ResNetDepth, resNetParameterSpecs } from '../../models/vision/resnet-shapes.ts';
import { engineNames, hasTorch } from '../support/engines.ts';
import { normals } from './small-model.ts';

const BATCH = 4;
const SIDE = 64;
const script = new URL('reference/resnet_reference.py', import.meta.url).pathname;
const pythonWithTorchvision = ['/usr/bin/python3', 'python3'].find(
  (python) => spawnSync(python, ['-c', 'import torchvision, numpy'], { stdio: 'ignore', timeout: 60_000 }).status === 0,
);

/** Largest absolute difference over the largest absolute value. */
function relativeError(actual: ArrayLike<number>, expected: Float32Array): number {
  let difference = 0;
  let scale = 1e-30;
  for (let i = 0; i < expected.length; i++) {
    difference = Math.max(difference, Math.abs(actual[i]! - expected[i]!));
    scale = Math.max(scale, Math.abs(expected[i]!));
  }
  return difference / scale;
}

/** Root mean square of the differences over that of the values. */
function meanError(actual: ArrayLike<number>, expected: Float32Array): number {
  let differences = 0;
  let squares = 1e-60;
  for (let i = 0; i < expected.length; i++) {
    differences += (actual[i]! - expected[i]!) ** 2;
    squares += expected[i]! ** 2;
  }
  return Math.sqrt(differences / squares);
}

/** BHWC pixels, and the same in PyTorch's order. */
function pixels(): { last: Float32Array; first: Float32Array } {
  const last = normals(BATCH * SIDE * SIDE * 3, 'pixels');
  const first = new Float32Array(last.length);
  for (let i = 0; i < last.length; i++) {
    const place = Math.floor(i / 3);
    const image = Math.floor(place / (SIDE * SIDE));
    first[(image * 3 + (i % 3)) * SIDE * SIDE + (place % (SIDE * SIDE))] = last[i]!;
  }
  return { last, first };
}

/** Weights off their special values, so that a swap of two shows. */
function weightsOf(model: ResNet): Map<string, Float32Array> {
  return new Map(
    [...model.readWeights()].map(([name, values]) => {
      const noise = normals(values.length, name);
      return [
        name,
        values.map((value, i) => value + (values.length < 4096 && value >= 0 ? 0.1 * Math.abs(noise[i]!) : 0)),
      ];
    }),
  );
}

interface Outcome {
  readonly evaluation: Float32Array;
  readonly training: Float32Array;
  /** Gradients by parameter, and buffers after the forward in training. */
  readonly after: ReadonlyMap<string, Float32Array>;
}

function run(model: ResNet, images: Float32Array, gradient: Float32Array): Outcome {
  const x = tf.tensor4d(images.slice(), [BATCH, SIDE, SIDE, 3]);
  const before = tf.memory().numTensors;
  const evaluation = tf.tidy(() => model.features(x, { training: false }).dataSync<'float32'>());
  const recording = recordForward(() => [model.features(x, { training: true })]);
  const training = recording.outputs[0]!.dataSync<'float32'>();
  const dy = tf.tensor2d(gradient.slice(), recording.outputs[0]!.shape as [number, number]);
  const after = new Map<string, Float32Array>();
  const variables = model.parameters.map(({ variable }) => variable);
  recording.backward([dy], variables, (index, values) => {
    after.set(`${model.parameters[index]!.name}.grad`, new Float32Array(values.dataSync<'float32'>()));
  });
  dy.dispose();
  expect(tf.memory().numTensors).toBe(before);
  x.dispose();
  for (const { name, variable } of model.buffers) after.set(name, new Float32Array(variable.dataSync<'float32'>()));
  return { evaluation, training, after };
}

describe.skipIf(!pythonWithTorchvision)('against float64 torchvision (skipped without python3-torchvision)', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'covey-resnet-'));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  const floats = async (name: string): Promise<Float32Array> => {
    const bytes = await readFile(path.join(folder, name));
    return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4).slice();
  };

  it.skipIf(!hasTorch).each([18, 50] as ResNetDepth[])(
    'ResNet-%d: features, gradients and running statistics are the same',
    async (depth) => {
      await loadEngine({ engine: 'torch', threads: 1 });
      const model = new ResNet({ depth }, { seed: 3, precision: 'fp32' });
      const weights = weightsOf(model);
      model.setWeights(weights);
      const images = pixels();
      const gradient = normals(BATCH * featureWidth(depth), 'gradient');
      await Promise.all([
        ...[...weights].map(([name, values]) => writeFile(path.join(folder, name), values)),
        writeFile(path.join(folder, 'pixels'), images.first),
        writeFile(path.join(folder, 'gradient'), gradient),
      ]);
      const settings = { depth, folder, double: true, pixelShape: [BATCH, 3, SIDE, SIDE] };
      await writeFile(path.join(folder, 'settings.json'), JSON.stringify(settings));
      const told = execFileSync(pythonWithTorchvision!, [script, path.join(folder, 'settings.json')], {
        encoding: 'utf8',
        timeout: 240_000,
      });
      const { keys } = JSON.parse(told.trim().split('\n').at(-1)!) as { keys: string[] };
      expect([...weights.keys()].sort()).toEqual(keys.sort());

      const ours = run(model, images.last, gradient);
      expect(relativeError(ours.evaluation, await floats('out.evaluation'))).toBeLessThan(1e-4);
      expect(relativeError(ours.training, await floats('out.training'))).toBeLessThan(1e-4);
      // In a deep network of small maps rounding moves a few values over ReLU's kink, each with a whole gradient: PyTorch in fp32 is 2e-2 from itself in fp64.
      const [error, limit] = depth === 18 ? [relativeError, 1e-4] : [meanError, 6e-2];
      const worst = await Promise.all(
        [...ours.after].map(async ([name, values]) => ({ name, error: error(values, await floats(`out.${name}`)) })),
      );
      worst.sort((a, b) => b.error - a.error);
      expect(worst.length).toBe(keys.length);
      expect(worst[0]!.error, worst[0]!.name).toBeLessThan(limit);
      model.dispose();
    },
    300_000,
  );
});

describe('ResNet', () => {
  it('has torchvision’s number of parameters at every depth', () => {
    const count = (depth: ResNetDepth) =>
      resNetParameterSpecs({ depth, classes: 1000 }).reduce((sum, { shape }) => sum + elementCount(shape), 0);
    expect(([18, 34, 50, 101, 152] as const).map(count)).toEqual([11689512, 21797672, 25557032, 44549160, 60192808]);
  });

  it('starts every block as the identity where asked to', () => {
    const gains = resNetParameterSpecs({ depth: 50, zeroInitResidual: true }).filter(({ name }) =>
      name.endsWith('bn3.weight'),
    );
    expect(gains.map(({ initial }) => initial)).toEqual(Array(16).fill({ kind: 'constant', value: 0 }));
  });

  it('refuses a depth that does not exist, pixels that are no images, and weights of another model', async () => {
    await loadEngine({ engine: 'cpu', threads: 1 });
    expect(() => resNetParameterSpecs({ depth: 19 as ResNetDepth })).toThrow(/18, 34, 50/);
    const model = new ResNet({ depth: 18 }, { seed: 1, precision: 'fp32', init: 'zeros' });
    expect(() => model.features(tf.zeros([1, 32, 32, 1]) as Tensor4D, { training: false })).toThrow(/\[1,32,32,1\]/);
    expect(() => model.logits(tf.zeros([1, 32, 32, 3]) as Tensor4D, { training: false })).toThrow(/without `classes`/);
    const weights = model.readWeights();
    weights.delete('bn1.running_var');
    expect(() => model.setWeights(weights)).toThrow(/bn1.running_var is missing/);
    model.dispose();
  });

  // JavaScript takes half a minute for it: only where there is nothing better.
  it.each(engineNames.slice(-1))(
    'classifies and learns on %s',
    async (engine) => {
      await loadEngine({ engine, threads: 1 });
      const model = new ResNet({ depth: 18, classes: 3 }, { seed: 1, precision: 'fp32' });
      const x = tf.tensor4d(normals(2 * 32 * 32 * 3, 'small'), [2, 32, 32, 3]);
      const recording = recordForward(() => [model.logits(x, { training: true })]);
      const seen = new Set<string>();
      const dy = tf.ones([2, 3]) as Tensor2D;
      const variables = model.parameters.map(({ variable }) => variable);
      recording.backward([dy], variables, (index) => void seen.add(model.parameters[index]!.name));
      expect(seen.size).toBe(model.parameters.length);
      expect(model.buffers.every(({ variable }) => variable.dataSync().every(Number.isFinite))).toBe(true);
      tf.dispose([x, dy]);
      model.dispose();
    },
    300_000,
  );

  it.skipIf(!hasTorch)('gives features in bf16 that agree with fp32 within bf16 rounding', async () => {
    await loadEngine({ engine: 'torch', threads: 1 });
    const images = tf.tensor4d(normals(2 * 64 * 64 * 3, 'half'), [2, 64, 64, 3]);
    const features = (['fp32', 'bf16'] as const).map((precision) => {
      const model = new ResNet({ depth: 18 }, { seed: 2, precision });
      const values = tf.tidy(() => model.features(images, { training: false }).dataSync<'float32'>());
      model.dispose();
      return values;
    });
    images.dispose();
    expect(relativeError(features[1]!, features[0]!)).toBeLessThan(5e-2);
  });
});
