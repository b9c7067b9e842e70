import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { VisionConfig } from '../../common/config/vision-config.ts';
import { loadEngine, recordForward, type Tensor3D, type Tensor4D, tf } from '../../engine/index.ts';
import { ClipModel } from '../../models/clip/clip-model.ts';
import { batchNormLayer } from '../../models/vision/batch-norm-layer.ts';
import { sincosPositions } from '../../models/vision/sincos-positions.ts';
import { classTokens, encodeTokens, finalNorm, patchTokens } from '../../models/vision/vit.ts';
import { vitLayout } from '../../models/vision/vit-layout.ts';
import { pythonWithTorch } from '../support/python-torch.ts';
import { normals, smallConfig } from './small-model.ts';

const BATCH = 5;
const script = new URL('reference/towers_reference.py', import.meta.url).pathname;
const VIT = { imageSize: 16, patchSize: 4, width: 32, layers: 2, headWidth: 16, mlpRatio: 2 };

interface Case {
  readonly title: string;
  readonly vision: VisionConfig;
  readonly settings: object;
}

const CASES: readonly Case[] = [
  {
    title: "CLIP's ResNet",
    vision: { kind: 'modified-resnet', imageSize: 64, blocks: [1, 2, 1, 1], width: 8, headWidth: 64 },
    settings: { tower: 'modified-resnet', blocks: [1, 2, 1, 1], heads: 4 },
  },
  {
    title: "SigLIP's ViT",
    vision: { ...VIT, pooling: 'map', lnPre: false, patchBias: true, layerNormEps: 1e-6 },
    settings: { tower: 'vit', pooling: 'map', patch: 4, layers: 2, heads: 2, eps: 1e-6 },
  },
  {
    title: "MAE's ViT in fine-tuning",
    vision: { ...VIT, pooling: 'avg', lnPre: false, patchBias: true, positions: 'sincos', layerNormEps: 1e-6 },
    settings: { tower: 'vit', pooling: 'avg', patch: 4, layers: 2, heads: 2, eps: 1e-6 },
  },
];

/** BHWC pixels in the channels-first order of PyTorch. */
function channelsFirst(pixels: Float32Array, side: number): Float32Array {
  const out = new Float32Array(pixels.length);
  for (let i = 0; i < pixels.length; i++) {
    const place = Math.floor(i / 3);
    const image = Math.floor(place / (side * side));
    out[(image * 3 + (i % 3)) * side * side + (place % (side * side))] = pixels[i]!;
  }
  return out;
}

/** Largest absolute difference over the largest absolute value, or over `floor`: a softmax is deaf to the bias of its keys, whose gradient is 0. */
function relativeError(actual: ArrayLike<number>, expected: Float32Array, floor = 1e-30): number {
  let difference = 0;
  let scale = floor;
  for (let i = 0; i < expected.length; i++) {
    difference = Math.max(difference, Math.abs(actual[i]! - expected[i]!));
    scale = Math.max(scale, Math.abs(expected[i]!));
  }
  return difference / scale;
}

/** A model with weights off their special values, so that a swap of two shows. */
function shakenModel(vision: VisionConfig): ClipModel {
  const model = new ClipModel({ ...smallConfig, vision }, { seed: 3, precision: 'fp32' });
  const shaken = [...model.readWeights()].map(([name, values]) => {
    const noise = normals(values.length, name);
    const positive = name.endsWith('running_var');
    return [name, values.map((value, i) => value + 0.1 * (positive ? Math.abs(noise[i]!) : noise[i]!))] as const;
  });
  model.setWeights(new Map(shaken));
  return model;
}

describe.skipIf(!pythonWithTorch)('against float64 PyTorch (skipped without python3-torch)', () => {
  let folder: string;
  beforeAll(async () => {
    await loadEngine({ engine: 'auto', threads: 1 });
    folder = await mkdtemp(path.join(tmpdir(), 'covey-towers-'));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  it.each(CASES)(
    '$title: embeddings, gradients and statistics are the same',
    async ({ vision, settings }) => {
      const model = shakenModel(vision);
      const side = vision.imageSize;
      const pixels = normals(BATCH * side * side * 3, 'pixels');
      const gradient = normals(BATCH * smallConfig.embedDim, 'gradient');
      const image = [...model.parameters, ...model.buffers].filter(({ name }) => name.startsWith('visual.'));
      const weights = model.readWeights();
      const write = (name: string, values: Uint8Array | Float32Array | string) =>
        writeFile(path.join(folder, name), values);
      for (const { name } of image) await write(name, weights.get(name)!);
      await write('pixels', channelsFirst(pixels, side));
      await write('gradient', gradient);
      const shapes = Object.fromEntries(image.map(({ name, shape }) => [name, shape]));
      await write(
        'settings.json',
        JSON.stringify({ ...settings, weights: shapes, pixelShape: [BATCH, 3, side, side] }),
      );
      await promisify(execFile)(pythonWithTorch!, [script, folder], { timeout: 120_000 });
      const told = async (name: string) => {
        const bytes = await readFile(path.join(folder, `out.${name}`));
        return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4).slice();
      };

      const x = tf.tensor4d(pixels.slice(), [BATCH, side, side, 3]) as Tensor4D;
      const evaluation = tf.tidy(() => model.encodeImage(x).dataSync<'float32'>());
      expect(relativeError(evaluation as unknown as Float32Array, await told('evaluation'))).toBeLessThan(2e-5);
      const recording = recordForward(() => [model.encodeImage(x, { training: true })]);
      expect(relativeError(recording.outputs[0]!.dataSync(), await told('training'))).toBeLessThan(2e-5);
      const dy = tf.tensor2d(gradient.slice(), [BATCH, smallConfig.embedDim]);
      const ours = new Map<string, Float32Array>();
      const parameters = image.filter(({ variable }) => variable.trainable);
      recording.backward(
        [dy],
        parameters.map(({ variable }) => variable),
        (index, values) => void ours.set(parameters[index]!.name, Float32Array.from(values.dataSync())),
      );
      expect([...ours.keys()].sort()).toEqual(parameters.map(({ name }) => name).sort());
      for (const [name, values] of ours) {
        expect(relativeError(values, await told(`${name}.grad`), 1e-2), name).toBeLessThan(2e-4);
      }
      const seen = new Float32Array(model.statistics?.length ?? 0);
      model.statistics?.read(seen);
      let offset = 0;
      for (const { name, shape } of model.buffers.filter((buffer) => /running_/.test(buffer.name))) {
        const own = seen.subarray(offset, offset + shape[0]!);
        offset += shape[0]!;
        expect(relativeError(own, await told(name), 0.1), name).toBeLessThan(2e-5);
      }
      tf.dispose([x, dy]);
      model.dispose();
    },
    150_000,
  );
});

describe('tokens of a ViT', () => {
  it('may be encoded in any number: all of them give the tower’s feature, some those of a picture without the others', async () => {
    await loadEngine({ engine: 'auto', threads: 1 });
    const vision = { ...VIT, lnPre: false, positions: 'sincos' as const };
    const model = shakenModel(vision);
    const layout = vitLayout(vision);
    const normalise = batchNormLayer(model.parameter);
    const tower = {
      parameter: model.parameter,
      precision: 'fp32' as const,
      quickGelu: false,
      recomputedBlocks: 0,
      normalise,
    };
    const x = tf.tensor4d(normals(2 * 16 * 16 * 3, 'tokens'), [2, 16, 16, 3]) as Tensor4D;
    const encoded = (patches: Tensor3D) =>
      tf.tidy(() => {
        const tokens = tf.concat([classTokens(2, layout, tower), patches], 1) as Tensor3D;
        const y = finalNorm(encodeTokens(tokens, layout, tower), layout, tower);
        return tf.slice(y, [0, 0, 0], [2, 1, VIT.width]).dataSync<'float32'>();
      }) as unknown as Float32Array;
    const patches = patchTokens(x, layout, tower);
    expect(patches.shape).toEqual([2, 16, VIT.width]);
    const whole = tf.tidy(() => model.features(x).dataSync<'float32'>()) as unknown as Float32Array;
    expect(relativeError(encoded(patches), whole)).toBeLessThan(1e-5);
    const some = [0, 3, 5].map((index) => tf.slice(patches, [0, index, 0], [2, 1, VIT.width]));
    const [a, b] = [
      [0, 1, 2],
      [2, 0, 1],
    ].map((order) =>
      encoded(
        tf.concat(
          order.map((i) => some[i]!),
          1,
        ) as Tensor3D,
      ),
    );
    // Positions are in the tokens: their order says nothing, their choice does.
    expect(relativeError(a!, b!)).toBeLessThan(1e-5);
    expect(relativeError(a!, whole)).toBeGreaterThan(1e-2);
    model.dispose();
  });

  it('have MAE’s fixed positions', () => {
    const positions = sincosPositions(3, 8, true);
    expect(positions.subarray(0, 8)).toEqual(new Float32Array(8));
    // Row 2, column 1: sin and cos of 1 and 1/100 for the column, of 2 and 2/100 for the row.
    const expected = [
      Math.sin(1),
      Math.sin(0.01),
      Math.cos(1),
      Math.cos(0.01),
      Math.sin(2),
      Math.sin(0.02),
      Math.cos(2),
      Math.cos(0.02),
    ];
    const place = positions.subarray(8 * (1 + 7), 8 * (1 + 8));
    expected.forEach((value, i) => void expect(place[i]).toBeCloseTo(value, 6));
  });
});
