import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { compareOnnx } from '../../cli/verify/compare-onnx.ts';
import { compareTfjs } from '../../cli/verify/compare-tfjs.ts';
import type { Comparison } from '../../cli/verify/comparison.ts';
import { referenceEmbeddings } from '../../cli/verify/reference-embeddings.ts';
import { iconVerifySamples, type VerifySamples } from '../../cli/verify/verify-samples.ts';
import type { ModifiedResnetConfig, VisionConfig } from '../../common/config/vision-config.ts';
import { type Engine, loadEngine } from '../../engine/index.ts';
import { fittingFormats } from '../../models/formats/export-formats.ts';
import { exportOnnx } from '../../models/formats/onnx/export-onnx.ts';
import { backboneOf, type Pretrained, type PretrainedClip, visionOf } from '../../models/formats/pretrained.ts';
import { exportTfjs } from '../../models/formats/tfjs/export-tfjs.ts';
import { trainBpe } from '../../models/tokenizer/bpe-trainer.ts';
import { loadTokenizer } from '../../models/tokenizer/tokenizer.ts';
import { backboneSpecs } from '../../models/vision/backbone.ts';
import { shakenWeights, smallConfig, smallWeights } from '../models/small-model.ts';

const COUNT = 6;
const TOLERANCE = 1e-4;
const PREPROCESS = { mean: [0.48, 0.46, 0.41], std: [0.27, 0.26, 0.28] } as const;
const config = { ...smallConfig, vision: { ...smallConfig.vision, imageSize: 32 } };

let dir: string;
let engine: Engine;
let samples: VerifySamples;

async function modelOf(
  quickGelu: boolean,
  logitBias?: number,
  vision: VisionConfig = config.vision,
): Promise<PretrainedClip> {
  const own = { ...config, quickGelu, vision, ...(logitBias === undefined ? {} : { initLogitBias: logitBias }) };
  const tokenizer = await loadTokenizer(trainBpe(samples.captions, { vocabSize: 600 }), config.text.contextLength);
  return { kind: 'clip', config: own, weights: smallWeights(own), preprocess: PREPROCESS, tokenizer };
}

beforeAll(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'covey-verify-'));
  engine = await loadEngine({ engine: 'auto', threads: 1 });
  samples = await iconVerifySamples(COUNT, config.vision.imageSize);
});
afterAll(async () => {
  engine.close();
  await rm(dir, { recursive: true, force: true });
});

const hasOrt = await import('onnxruntime-node').then(
  () => true,
  () => false,
);

describe.skipIf(!hasOrt)(
  'ONNX in onnxruntime, on drawings and their names (skipped without onnxruntime-node)',
  { timeout: 60_000 },
  () => {
    it.each([
      ['exact GELU', false, undefined],
      ['quick GELU', true, undefined],
      ['a logit bias', false, -8],
    ])('equals covey in every output: %s', async (name, quickGelu, bias) => {
      const model = await modelOf(quickGelu, bias);
      const folder = path.join(dir, `onnx ${name}`);
      await exportOnnx(folder, model, '0');
      const found = await compareOnnx(folder, model, referenceEmbeddings(model, samples), TOLERANCE);
      expect(found.map(({ file, output }) => `${file} ${output}`)).toEqual([
        'onnx/vision_model.onnx image_embeds',
        'onnx/text_model.onnx text_embeds',
        'onnx/model.onnx logits_per_image',
        'onnx/model.onnx logits_per_text',
        'onnx/model.onnx text_embeds',
        'onnx/model.onnx image_embeds',
      ]);
      for (const one of found) expect(one.maxAbsDifference, JSON.stringify(one)).toBeLessThanOrEqual(TOLERANCE);
    });

    it('equals covey for a backbone, and shows it when the weights are another model’s', async () => {
      const model = backboneOf(await modelOf(false));
      await exportOnnx(path.join(dir, 'backbone'), model, '0');
      const reference = referenceEmbeddings(model, samples);
      const [found] = await compareOnnx(path.join(dir, 'backbone'), model, reference, TOLERANCE);
      expect(found).toMatchObject({ file: 'onnx/vision_model.onnx', output: 'pooler_output' });
      expect(found!.maxAbsDifference).toBeLessThanOrEqual(TOLERANCE);
      const other = referenceEmbeddings(
        backboneOf({ ...(await modelOf(false)), weights: smallWeights(config, 6) }),
        samples,
      );
      const [wrong] = await compareOnnx(path.join(dir, 'backbone'), model, other, TOLERANCE);
      expect(wrong!.maxAbsDifference).toBeGreaterThan(0.1);
    });
  },
);

describe('tfjs graph models in stock tfjs', { timeout: 120_000 }, () => {
  it.each([
    ['exact GELU', false],
    ['quick GELU', true],
  ])('equal covey on drawings and their names: %s', async (name, quickGelu) => {
    const model = await modelOf(quickGelu);
    const folder = path.join(dir, `tfjs ${name}`);
    await exportTfjs(folder, model, '0');
    const found = await compareTfjs(folder, model, referenceEmbeddings(model, samples), TOLERANCE);
    expect(found.map(({ file, output }) => `${file} ${output}`)).toEqual([
      'vision/model.json image_embeds',
      'text/model.json text_embeds',
    ]);
    for (const one of found) expect(one.maxAbsDifference, JSON.stringify(one)).toBeLessThanOrEqual(TOLERANCE);
  });

  it('equal covey for a backbone', async () => {
    const model = backboneOf(await modelOf(false));
    const folder = path.join(dir, 'tfjs backbone');
    await exportTfjs(folder, model, '0');
    const [found, ...more] = await compareTfjs(folder, model, referenceEmbeddings(model, samples), TOLERANCE);
    expect(more).toEqual([]);
    expect(found!.maxAbsDifference).toBeLessThanOrEqual(TOLERANCE);
  });
});

const VIT = { imageSize: 32, patchSize: 4, width: 32, layers: 2, headWidth: 16, mlpRatio: 3 } as const;
const CLIP_RESNET: ModifiedResnetConfig = {
  kind: 'modified-resnet',
  imageSize: 32,
  blocks: [1, 1, 2, 1],
  width: 8,
  headWidth: 32,
};

describe.skipIf(!hasOrt)('image towers that are not CLIP’s ViT', { timeout: 120_000 }, () => {
  async function verified(name: string, model: Pretrained): Promise<Comparison[]> {
    expect(fittingFormats(model)).toEqual(expect.arrayContaining(['onnx', 'tfjs', 'covey']));
    const folder = path.join(dir, name);
    await exportOnnx(folder, model, '0');
    await exportTfjs(folder, model, '0');
    const reference = referenceEmbeddings(model, await iconVerifySamples(COUNT, visionOf(model).imageSize));
    const found = [
      ...(await compareOnnx(folder, model, reference, TOLERANCE)),
      ...(await compareTfjs(folder, model, reference, TOLERANCE)),
    ];
    for (const one of found) expect(one.maxAbsDifference, JSON.stringify(one)).toBeLessThanOrEqual(TOLERANCE);
    return found;
  }

  it.each<[string, VisionConfig]>([
    ['mean over normed patches', { ...VIT, pooling: 'avg', normBeforePool: true, classToken: false }],
    ['mean over patches, then the norm', { ...VIT, pooling: 'avg' }],
    ['MoCo v3', { ...VIT, lnPre: false, patchBias: true, positions: 'sincos', layerNormEps: 1e-6 }],
    ['attention pool with a class token', { ...VIT, pooling: 'map', classToken: true }],
    ['ResNet-18 for small pictures', { kind: 'resnet', imageSize: 32, depth: 18, stem: 'cifar', width: 8 }],
    ['ResNet-50', { kind: 'resnet', imageSize: 32, depth: 50, stem: 'imagenet', width: 8 }],
    ['CLIP’s ResNet, several places', { ...CLIP_RESNET, imageSize: 64 }],
  ])('have graphs that equal covey as backbones: %s', async (name, vision) => {
    const weights = shakenWeights(backboneSpecs(vision), 3);
    const model = { kind: 'backbone', vision, quickGelu: false, weights, preprocess: PREPROCESS } as const;
    const found = await verified(name, model);
    expect(found.map(({ format }) => format)).toEqual(['onnx', 'tfjs']);
  });

  it.each<[string, VisionConfig, number | undefined]>([
    ['SigLIP', { ...VIT, pooling: 'map', lnPre: false, patchBias: true, layerNormEps: 1e-6 }, -8],
    ['CLIP’s ResNet', CLIP_RESNET, undefined],
    ['a plain ResNet', { kind: 'resnet', imageSize: 32, depth: 18, width: 8 }, undefined],
  ])('and with texts beside them: %s', async (name, vision, bias) => {
    const model = await modelOf(false, bias, vision);
    const found = await verified(`${name} with texts`, model);
    expect(found.map(({ format, output }) => `${format} ${output}`)).toEqual([
      'onnx image_embeds',
      'onnx text_embeds',
      'onnx logits_per_image',
      'onnx logits_per_text',
      'onnx text_embeds',
      'onnx image_embeds',
      'tfjs image_embeds',
      'tfjs text_embeds',
    ]);
  });
});
