import { beforeAll, describe, expect, it } from 'vitest';
import type { VisionConfig } from '../../common/config/vision-config.ts';
import { loadEngine, recordForward, type Tensor, type Tensor4D, tf } from '../../engine/index.ts';
import { ClipModel } from '../../models/clip/clip-model.ts';
import { resolveModelConfig } from '../../models/model-config.ts';
import { newBackbone } from '../../models/vision/backbone.ts';
import { engineNames } from '../support/engines.ts';
import { normals, smallConfig } from './small-model.ts';

const BATCH = 4;

interface Case {
  readonly title: string;
  readonly vision: VisionConfig;
}

const VIT = { imageSize: 16, patchSize: 4, width: 32, layers: 2, headWidth: 16, mlpRatio: 2 };

const CASES: readonly Case[] = [
  { title: "CLIP's ViT", vision: VIT },
  {
    title: "MAE's and MoCo v3's ViT",
    vision: { ...VIT, lnPre: false, patchBias: true, positions: 'sincos', layerNormEps: 1e-6, init: 'mae' },
  },
  { title: 'a ViT with the mean over patches', vision: { ...VIT, pooling: 'avg', init: 'moco-v3' } },
  {
    title: 'a ViT with the mean over normalised patches',
    vision: { ...VIT, pooling: 'avg', normBeforePool: true, classToken: false },
  },
  { title: "SigLIP's ViT", vision: { ...VIT, pooling: 'map', lnPre: false, patchBias: true, layerNormEps: 1e-6 } },
  {
    title: 'ResNet-18 with the CIFAR stem',
    vision: { kind: 'resnet', imageSize: 8, depth: 18, stem: 'cifar', width: 8 },
  },
  { title: 'ResNet-50', vision: { kind: 'resnet', imageSize: 32, depth: 50, width: 8 } },
  {
    title: "CLIP's ResNet",
    vision: { kind: 'modified-resnet', imageSize: 32, blocks: [1, 1, 2, 1], width: 8, headWidth: 64 },
  },
];

describe.each(engineNames)('on engine %s', (engine) => {
  beforeAll(() => loadEngine({ engine, threads: 1 }));

  it.each(CASES)('$title embeds pictures, moves every parameter, and leaves no tensor behind', ({ vision }) => {
    const before = tf.memory().numTensors;
    const model = new ClipModel({ ...smallConfig, vision }, { seed: 3, precision: 'fp32' });
    const side = vision.imageSize;
    const x = tf.tensor4d(normals(BATCH * side * side * 3, 'pixels'), [BATCH, side, side, 3]) as Tensor4D;
    const between = tf.memory().numTensors;
    const recording = recordForward(() => [model.encodeImage(x, { training: true })]);
    const [embeddings] = recording.outputs as [Tensor];
    expect(embeddings.shape).toEqual([BATCH, smallConfig.embedDim]);
    const lengths = tf.tidy(() => tf.norm(embeddings, 2, 1).dataSync());
    for (const length of lengths) expect(length).toBeCloseTo(1, 5);
    const seed = tf.tensor2d(normals(embeddings.size, 'seed'), embeddings.shape as [number, number]);
    const image = model.parameters.filter(({ name }) => name.startsWith('visual.'));
    const reached = new Set<string>();
    const variables = image.map(({ variable }) => variable);
    recording.backward([seed], variables, (index) => void reached.add(image[index]!.name));
    expect([...reached].sort()).toEqual(image.map(({ name }) => name).sort());
    seed.dispose();
    expect(tf.memory().numTensors).toBe(between);
    expect(tf.tidy(() => model.features(x).shape)).toEqual([BATCH, newBackbone(vision).featureWidth]);
    x.dispose();
    model.dispose();
    expect(tf.memory().numTensors).toBe(before);
  });
});

describe('a config of another kind of tower', () => {
  it('replaces the preset’s tower, whose sizes mean something else, but for the size of its pictures', () => {
    const { vision } = resolveModelConfig({ preset: 'tiny', vision: { kind: 'resnet', depth: 18 } });
    expect(vision).toEqual({ kind: 'resnet', depth: 18, imageSize: 48 });
  });

  it('is refused where a key belongs to another kind, a size does not fit or something is missing', () => {
    const made = (preset: string, vision: object) => () => resolveModelConfig({ preset, vision });
    expect(made('resnet50', { patchSize: 4 })).toThrow(/patchSize/);
    expect(made('tiny', { kind: 'resnet' })).toThrow(/model.vision.depth/);
    expect(made('RN50', { imageSize: 100 })).toThrow(/multiple of 32.*is 100/);
    expect(made('tiny', { classToken: false })).toThrow(/classToken: must be true/);
    expect(made('tiny', { normBeforePool: true })).toThrow(/pooling avg, which is tok/);
  });
});
