import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { compareOnnx } from '../../cli/verify/compare-onnx.ts';
import { compareTfjs } from '../../cli/verify/compare-tfjs.ts';
import { referenceEmbeddings } from '../../cli/verify/reference-embeddings.ts';
import { iconVerifySamples, type VerifySamples } from '../../cli/verify/verify-samples.ts';
import type { VisionConfig } from '../../common/config/run-config.ts';
import { RandomStream } from '../../common/random.ts';
import { type Engine, loadEngine } from '../../engine/index.ts';
import { initialValues } from '../../models/clip/initial-values.ts';
import { exportModel, fittingFormats } from '../../models/formats/export-formats.ts';
import { exportOnnx } from '../../models/formats/onnx/export-onnx.ts';
import { backboneOf, type PretrainedClip } from '../../models/formats/pretrained.ts';
import { exportTfjs } from '../../models/formats/tfjs/export-tfjs.ts';
import { trainBpe } from '../../models/tokenizer/bpe-trainer.ts';
import { loadTokenizer } from '../../models/tokenizer/tokenizer.ts';
import { backboneSpecs } from '../../models/vision/backbone.ts';
import { smallConfig, smallWeights } from '../models/small-model.ts';

const COUNT = 10;
const TOLERANCE = 1e-4;
const config = { ...smallConfig, vision: { ...smallConfig.vision, imageSize: 32 } };

let dir: string;
let engine: Engine;
let samples: VerifySamples;

async function modelOf(quickGelu: boolean, logitBias?: number): Promise<PretrainedClip> {
  const own = { ...config, quickGelu, ...(logitBias === undefined ? {} : { initLogitBias: logitBias }) };
  const tokenizer = await loadTokenizer(trainBpe(samples.captions, { vocabSize: 600 }), config.text.contextLength);
  const preprocess = { mean: [0.48, 0.46, 0.41], std: [0.27, 0.26, 0.28] } as const;
  return { kind: 'clip', config: own, weights: smallWeights(own), preprocess, tokenizer };
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

describe.skipIf(!hasOrt)('ViT layouts that are not CLIP’s', { timeout: 120_000 }, () => {
  it.each([
    [
      'the mean over patches, normed before, no class token',
      { pooling: 'avg', normBeforePool: true, classToken: false },
    ],
    ['the mean over patches, normed after', { pooling: 'avg' }],
    ['MoCo v3’s', { lnPre: false, patchBias: true, positions: 'sincos', layerNormEps: 1e-6 }],
  ] as const)('have graphs that equal covey: %s', async (name, options) => {
    const vision = { ...config.vision, ...options };
    const specs = backboneSpecs(vision);
    const weights = new Map(
      specs.map((spec) => {
        const noise = new RandomStream(3, spec.name);
        return [spec.name, initialValues(spec, 3).map((value) => value + noise.normal(0, 0.05))];
      }),
    );
    const preprocess = { mean: [0.48, 0.46, 0.41], std: [0.27, 0.26, 0.28] } as const;
    const model = { kind: 'backbone', vision, quickGelu: false, weights, preprocess } as const;
    expect(fittingFormats(model)).toEqual(['onnx', 'tfjs', 'covey']);
    const folder = path.join(dir, name);
    await exportOnnx(folder, model, '0');
    await exportTfjs(folder, model, '0');
    const reference = referenceEmbeddings(model, samples);
    const found = [
      ...(await compareOnnx(folder, model, reference, TOLERANCE)),
      ...(await compareTfjs(folder, model, reference, TOLERANCE)),
    ];
    expect(found.map(({ format }) => format)).toEqual(['onnx', 'tfjs']);
    for (const one of found) expect(one.maxAbsDifference, JSON.stringify(one)).toBeLessThanOrEqual(TOLERANCE);
  });

  it.each([
    ['18 layers for small pictures', { depth: 18, stem: 'cifar', width: 8 }],
    ['50 layers for large ones', { depth: 50, stem: 'imagenet', width: 8 }],
  ] as const)('nor ViTs at all: a ResNet of %s', async (name, options) => {
    const vision = { kind: 'resnet', imageSize: 32, ...options } as const;
    const weights = new Map(
      backboneSpecs(vision).map((spec) => {
        const noise = new RandomStream(4, spec.name);
        // Variances stay positive.
        const moved = (value: number) =>
          spec.name.endsWith('running_var') ? value + noise.uniform() : value + noise.normal(0, 0.02);
        return [spec.name, initialValues(spec, 4).map(moved)];
      }),
    );
    const preprocess = { mean: [0.48, 0.46, 0.41], std: [0.27, 0.26, 0.28] } as const;
    const model = { kind: 'backbone', vision, quickGelu: false, weights, preprocess } as const;
    expect(fittingFormats(model)).toEqual(['onnx', 'tfjs', 'covey']);
    const folder = path.join(dir, name);
    await exportOnnx(folder, model, '0');
    await exportTfjs(folder, model, '0');
    const reference = referenceEmbeddings(model, samples);
    const found = [
      ...(await compareOnnx(folder, model, reference, TOLERANCE)),
      ...(await compareTfjs(folder, model, reference, TOLERANCE)),
    ];
    expect(found.map(({ format }) => format)).toEqual(['onnx', 'tfjs']);
    for (const one of found) expect(one.maxAbsDifference, JSON.stringify(one)).toBeLessThanOrEqual(TOLERANCE);
  });

  it('and CLIP’s ResNet is refused with the reason', async () => {
    const vision: VisionConfig = {
      kind: 'modified-resnet',
      imageSize: 32,
      blocks: [1, 1, 1, 1],
      width: 8,
      headWidth: 8,
    };
    const preprocess = { mean: [0.5, 0.5, 0.5], std: [0.2, 0.2, 0.2] } as const;
    const weights = new Map(backboneSpecs(vision).map((spec) => [spec.name, initialValues(spec, 3)]));
    const model = { kind: 'backbone', vision, quickGelu: false, weights, preprocess } as const;
    const card = { name: 'x', origin: 'made up', training: [], data: [], metrics: [], license: undefined };
    const attempt = exportModel(path.join(dir, 'resnet'), 'onnx', model, { card, version: '0' });
    await expect(attempt).rejects.toMatchObject({
      code: 'UNSUPPORTED',
      message: expect.stringContaining('vision.kind is modified-resnet'),
    });
  });
});
