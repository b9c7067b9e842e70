import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { VisionConfig } from '../../common/config/vision-config.ts';
import { misfit } from '../../models/formats/export-formats.ts';
import { exportHf, graphSettings, readHfConfig } from '../../models/formats/hugging-face.ts';
import { type LoadOptions, loadPretrainedPath } from '../../models/formats/load-pretrained.ts';
import { exportOpenClip, readOpenClipConfig } from '../../models/formats/open-clip.ts';
import { resizePositions } from '../../models/formats/position-resize.ts';
import {
  backboneOf,
  type Pretrained,
  type PretrainedBackbone,
  type PretrainedClip,
} from '../../models/formats/pretrained.ts';
import { type HostTensor, readSafetensors, writeSafetensors } from '../../models/formats/safetensors.ts';
import { resolveModelConfig } from '../../models/model-config.ts';
import { presets } from '../../models/presets.ts';
import { trainBpe } from '../../models/tokenizer/bpe-trainer.ts';
import { loadTokenizer, type Tokenizer } from '../../models/tokenizer/tokenizer.ts';
import { backboneSpecs } from '../../models/vision/backbone.ts';
import { madeUpCaptions, shakenWeights, smallConfig, smallWeights } from './small-model.ts';

const PREPROCESS = { mean: [0.5, 0.4, 0.3], std: [0.2, 0.25, 0.3] } as const;

let dir: string;
let tokenizer: Tokenizer;
beforeAll(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'covey-towers-'));
  tokenizer = await loadTokenizer(trainBpe(madeUpCaptions(200), { vocabSize: 600 }), smallConfig.text.contextLength);
});
afterAll(() => rm(dir, { recursive: true, force: true }));

const at = (...parts: string[]) => path.join(dir, ...parts);
const plain = (model: Pretrained) => {
  const { kind, weights, preprocess } = model;
  return kind === 'clip'
    ? { kind, weights, preprocess, config: model.config }
    : { kind, weights, preprocess, vision: model.vision, quickGelu: model.quickGelu };
};
const shapesIn = async (file: string) => {
  const { tensors } = readSafetensors(await readFile(file));
  return Object.fromEntries([...tensors].map(([name, { shape }]) => [name, shape]));
};

/** Sizes of the ResNet, written out: the tables below are from open_clip's and transformers' sources. */
const W = 4;
const LAST = 32 * W;
const CLIP_RESNET = { kind: 'modified-resnet', imageSize: 64, blocks: [1, 2, 1, 1], width: W, headWidth: 64 } as const;

function withTexts(vision: VisionConfig): PretrainedClip {
  const text = { ...smallConfig.text, width: 64, heads: 1 };
  const config = resolveModelConfig({ ...smallConfig, vision, text });
  return { kind: 'clip', config, weights: smallWeights(config), preprocess: PREPROCESS, tokenizer };
}

/** The image tower of open_clip's `ModifiedResNet` (modified_resnet.py), without the counters of its norms. */
function openClipResnetTable(): Map<string, number[]> {
  const table = new Map<string, number[]>();
  const conv = (name: string, out: number, inputs: number, size: number) =>
    table.set(`visual.${name}.weight`, [out, inputs, size, size]);
  const norm = (name: string, width: number) => {
    for (const part of ['weight', 'bias', 'running_mean', 'running_var']) table.set(`visual.${name}.${part}`, [width]);
  };
  conv('conv1', W / 2, 3, 3);
  conv('conv2', W / 2, W / 2, 3);
  conv('conv3', W, W / 2, 3);
  for (const [i, width] of [W / 2, W / 2, W].entries()) norm(`bn${i + 1}`, width);
  let inputs = W;
  for (const [stage, blocks] of [1, 2, 1, 1].entries()) {
    const planes = W * 2 ** stage;
    for (let i = 0; i < blocks; i++) {
      const name = `layer${stage + 1}.${i}`;
      conv(`${name}.conv1`, planes, inputs, 1);
      conv(`${name}.conv2`, planes, planes, 3);
      conv(`${name}.conv3`, 4 * planes, planes, 1);
      for (const [n, width] of [planes, planes, 4 * planes].entries()) norm(`${name}.bn${n + 1}`, width);
      if (i === 0) {
        conv(`${name}.downsample.0`, 4 * planes, inputs, 1);
        norm(`${name}.downsample.1`, 4 * planes);
      }
      inputs = 4 * planes;
    }
  }
  table.set('visual.attnpool.positional_embedding', [2 * 2 + 1, LAST]);
  for (const part of ['q', 'k', 'v'])
    table.set(`visual.attnpool.${part}_proj.weight`, [LAST, LAST]).set(`visual.attnpool.${part}_proj.bias`, [LAST]);
  table.set('visual.attnpool.c_proj.weight', [24, LAST]).set('visual.attnpool.c_proj.bias', [24]);
  return table;
}

/** The same file with an int64 counter for every norm, as PyTorch keeps them. */
async function withCounters(file: string): Promise<Uint8Array> {
  const bytes = await readFile(file);
  const headerBytes = Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.subarray(8, 8 + headerBytes).toString()) as Record<string, unknown>;
  const norms = Object.keys(header).filter((name) => name.endsWith('.running_var'));
  let end = bytes.length - 8 - headerBytes;
  for (const name of norms) {
    const key = name.replace('running_var', 'num_batches_tracked');
    header[key] = { dtype: 'I64', shape: [], data_offsets: [end, end + 8] };
    end += 8;
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, bytes.subarray(8 + headerBytes), Buffer.alloc(8 * norms.length)]);
}

describe('CLIP’s ResNet in open_clip’s files', () => {
  it('has exactly open_clip’s keys, and comes back to the bit, with texts and without', async () => {
    const whole = withTexts(CLIP_RESNET as VisionConfig);
    for (const [name, model] of [
      ['whole', whole],
      ['tower', backboneOf(whole)],
    ] as const) {
      await exportOpenClip(at(name), model);
      expect(plain(await loadPretrainedPath(at(name)))).toEqual(plain(model));
    }
    const shapes = await shapesIn(at('whole', 'open_clip_model.safetensors'));
    const visual = Object.entries(shapes).filter(([name]) => name.startsWith('visual.'));
    expect(Object.fromEntries(visual)).toEqual(Object.fromEntries(openClipResnetTable()));
    const { model_cfg } = JSON.parse(await readFile(at('whole', 'open_clip_config.json'), 'utf8'));
    expect(model_cfg.vision_cfg).toEqual({
      image_size: 64,
      layers: [1, 2, 1, 1],
      width: 4,
      head_width: 64,
      patch_size: null,
    });
  });

  it('may hold the counters of its norms, shows its sizes without a config, and has its positions resized', async () => {
    const model = withTexts(CLIP_RESNET as VisionConfig);
    await exportOpenClip(at('published'), model);
    const file = at('published', 'open_clip_model.safetensors');
    await writeFile(at('bare.safetensors'), await withCounters(file));
    const options: LoadOptions = { quickGelu: false, tokenizerJson: tokenizer.files()['tokenizer.json']! };
    const bare = await loadPretrainedPath(at('bare.safetensors'), options);
    expect(plain(bare)).toEqual({ ...plain(model), preprocess: bare.preprocess });
    const larger = await loadPretrainedPath(at('bare.safetensors'), { ...options, imageSize: 96 });
    const name = 'visual.attnpool.positional_embedding';
    const own = { shape: [5, LAST], values: model.weights.get(name)! };
    expect(larger.weights.get(name)).toEqual(resizePositions(own, { side: 3, firstTokens: 1 }).values);
    expect(larger.weights.get('visual.layer4.0.conv2.weight')).toEqual(
      model.weights.get('visual.layer4.0.conv2.weight'),
    );
  });

  it('is what RN50.json describes; a tower of timm is refused by name', () => {
    const text_cfg = { context_length: 77, vocab_size: 49408, width: 512, heads: 8, layers: 12 };
    const config = (vision_cfg: object) =>
      JSON.stringify({ model_cfg: { embed_dim: 1024, vision_cfg, text_cfg }, preprocess_cfg: {} });
    const published = { image_size: 224, layers: [3, 4, 6, 3], width: 64, patch_size: null };
    expect(readOpenClipConfig(config(published), 'x')).toMatchObject({ kind: 'clip', config: presets['RN50'] });
    const timm = { image_size: 224, timm_model_name: 'vit_base_patch16_siglip_224', timm_pool: 'map' };
    expect(() => readOpenClipConfig(config(timm), 'x')).toThrow(
      /vision_cfg.timm_model_name: towers of timm \(keys visual.trunk/,
    );
    expect(() => readOpenClipConfig(config({ ...published, attentional_pool: true }), 'x')).toThrow(/attentional_pool/);
  });
});

const SIGLIP: VisionConfig = {
  imageSize: 16,
  patchSize: 4,
  width: 32,
  layers: 2,
  headWidth: 16,
  mlpRatio: 3,
  pooling: 'map',
  lnPre: false,
  patchBias: true,
  layerNormEps: 1e-6,
};

function siglipTower(quickGelu = false): PretrainedBackbone {
  const { vision } = resolveModelConfig({ ...smallConfig, vision: SIGLIP });
  const weights = shakenWeights(backboneSpecs(vision), 8);
  return { kind: 'backbone', vision, quickGelu, weights, preprocess: PREPROCESS };
}

/** transformers' SiglipVisionModel state dict (printed from 4.38; modeling_siglip.py). */
function siglipTable(): Map<string, number[]> {
  const table = new Map<string, number[]>();
  const linear = (name: string, outputs: number, inputs: number) =>
    table.set(`vision_model.${name}.weight`, [outputs, inputs]).set(`vision_model.${name}.bias`, [outputs]);
  const norm = (name: string) => table.set(`vision_model.${name}.weight`, [32]).set(`vision_model.${name}.bias`, [32]);
  table.set('vision_model.embeddings.patch_embedding.weight', [32, 3, 4, 4]);
  table.set('vision_model.embeddings.patch_embedding.bias', [32]);
  table.set('vision_model.embeddings.position_embedding.weight', [16, 32]);
  for (const i of [0, 1]) {
    for (const part of ['q', 'k', 'v', 'out']) linear(`encoder.layers.${i}.self_attn.${part}_proj`, 32, 32);
    for (const part of ['layer_norm1', 'layer_norm2']) norm(`encoder.layers.${i}.${part}`);
    linear(`encoder.layers.${i}.mlp.fc1`, 96, 32);
    linear(`encoder.layers.${i}.mlp.fc2`, 32, 96);
  }
  norm('post_layernorm');
  table.set('vision_model.head.probe', [1, 1, 32]);
  table.set('vision_model.head.attention.in_proj_weight', [96, 32]);
  table.set('vision_model.head.attention.in_proj_bias', [96]);
  linear('head.attention.out_proj', 32, 32);
  norm('head.layernorm');
  linear('head.mlp.fc1', 96, 32);
  linear('head.mlp.fc2', 32, 96);
  return table;
}

describe('SigLIP’s image tower in transformers’ files', () => {
  it('has exactly the keys of SiglipVisionModel, q before kv in the pool, and comes back to the bit', async () => {
    const model = siglipTower();
    await exportHf(at('siglip'), model);
    const file = at('siglip', 'model.safetensors');
    expect(await shapesIn(file)).toEqual(Object.fromEntries(siglipTable()));
    const { tensors } = readSafetensors(await readFile(file));
    const packed = tensors.get('vision_model.head.attention.in_proj_bias')!.values;
    expect(packed.slice(0, 32)).toEqual(model.weights.get('visual.attn_pool.q.bias'));
    expect(packed.slice(32)).toEqual(model.weights.get('visual.attn_pool.kv.bias'));
    expect(plain(await loadPretrainedPath(at('siglip')))).toEqual(plain(model));
    expect(JSON.parse(await readFile(at('siglip', 'config.json'), 'utf8'))).toMatchObject({
      architectures: ['SiglipVisionModel'],
      model_type: 'siglip_vision_model',
      hidden_act: 'gelu',
      layer_norm_eps: 1e-6,
      num_attention_heads: 2,
    });
    // Beside graphs of it lies the same.
    expect(graphSettings(model)['config.json']).toBe(await readFile(at('siglip', 'config.json'), 'utf8'));
    expect(graphSettings(withTexts(SIGLIP))['config.json']).toBeUndefined();
    const larger = await loadPretrainedPath(at('siglip'), { imageSize: 24 });
    expect(larger.weights.get('visual.positional_embedding')).toHaveLength(36 * 32);
  });

  it('without a weight, or with one of another shape, is refused by both its names', async () => {
    await exportHf(at('broken'), siglipTower());
    const file = at('broken', 'model.safetensors');
    const { tensors } = readSafetensors(await readFile(file));
    const changed = new Map<string, HostTensor>(tensors);
    changed.delete('vision_model.head.attention.in_proj_weight');
    changed.set('vision_model.head.probe', { shape: [32], values: new Float32Array(32) });
    await writeFile(file, writeSafetensors(changed));
    await expect(loadPretrainedPath(at('broken'))).rejects.toThrow(
      /attn_pool.latent is \[32\], not \[1,1,32\].*attn_pool.q.weight is missing.*attn_pool.kv.weight is missing/,
    );
  });

  it('is refused where transformers computes something else', () => {
    const config = (own: object) => JSON.stringify({ model_type: 'siglip_vision_model', ...own });
    expect(() => readHfConfig(config({}), 'x', undefined)).toThrow(/hidden_act: must be gelu, is gelu_pytorch_tanh/);
    expect(() => readHfConfig(JSON.stringify({ model_type: 'siglip' }), 'x', undefined)).toThrow(
      /the image tower alone: its text tower reads in both directions/,
    );
    expect(misfit('hf', siglipTower(true))).toMatch(/one activation/);
    expect(misfit('hf', withTexts(SIGLIP))).toMatch(/--image-tower/);
    expect(misfit('open_clip', siglipTower())).toMatch(/vision.pooling is map/);
  });
});
