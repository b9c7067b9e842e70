import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { exportHf } from '../../models/formats/hugging-face.ts';
import { loadPretrainedPath } from '../../models/formats/load-pretrained.ts';
import { exportOpenClip } from '../../models/formats/open-clip.ts';
import type { Pretrained, PretrainedClip } from '../../models/formats/pretrained.ts';
import { readSafetensors } from '../../models/formats/safetensors.ts';
import { trainBpe } from '../../models/tokenizer/bpe-trainer.ts';
import { loadTokenizer, type Tokenizer } from '../../models/tokenizer/tokenizer.ts';
import { madeUpCaptions, smallConfig, smallWeights } from './small-model.ts';

// Sizes of smallConfig, written out: the tables below are from the formats' descriptions, not from the code.
const E = 24;
const IW = 32;
const IH = 96;
const TW = 48;
const TH = 96;

/** open_clip state dict (open_clip transformer.py, model.py). */
function openClipTable(): Map<string, number[]> {
  const table = new Map<string, number[]>([
    ['visual.class_embedding', [IW]],
    ['visual.positional_embedding', [17, IW]],
    ['visual.proj', [IW, E]],
    ['visual.conv1.weight', [IW, 3, 4, 4]],
    ['token_embedding.weight', [600, TW]],
    ['positional_embedding', [10, TW]],
    ['text_projection', [TW, E]],
    ['logit_scale', []],
  ]);
  const norm = (name: string, width: number) => table.set(`${name}.weight`, [width]).set(`${name}.bias`, [width]);
  norm('visual.ln_pre', IW);
  norm('visual.ln_post', IW);
  norm('ln_final', TW);
  const block = (prefix: string, width: number, hidden: number) => {
    norm(`${prefix}.ln_1`, width);
    norm(`${prefix}.ln_2`, width);
    table.set(`${prefix}.attn.in_proj_weight`, [3 * width, width]).set(`${prefix}.attn.in_proj_bias`, [3 * width]);
    table.set(`${prefix}.attn.out_proj.weight`, [width, width]).set(`${prefix}.attn.out_proj.bias`, [width]);
    table.set(`${prefix}.mlp.c_fc.weight`, [hidden, width]).set(`${prefix}.mlp.c_fc.bias`, [hidden]);
    table.set(`${prefix}.mlp.c_proj.weight`, [width, hidden]).set(`${prefix}.mlp.c_proj.bias`, [width]);
  };
  for (const i of [0, 1]) block(`visual.transformer.resblocks.${i}`, IW, IH);
  for (const i of [0, 1, 2]) block(`transformer.resblocks.${i}`, TW, TH);
  return table;
}

/** transformers' CLIPModel state dict (printed from 5.18; modeling_clip.py). */
function huggingFaceTable(): Map<string, number[]> {
  const table = new Map<string, number[]>([
    ['logit_scale', []],
    ['text_projection.weight', [E, TW]],
    ['visual_projection.weight', [E, IW]],
    ['text_model.embeddings.token_embedding.weight', [600, TW]],
    ['text_model.embeddings.position_embedding.weight', [10, TW]],
    ['vision_model.embeddings.class_embedding', [IW]],
    ['vision_model.embeddings.patch_embedding.weight', [IW, 3, 4, 4]],
    ['vision_model.embeddings.position_embedding.weight', [17, IW]],
  ]);
  const norm = (name: string, width: number) => table.set(`${name}.weight`, [width]).set(`${name}.bias`, [width]);
  const linear = (name: string, outputs: number, inputs: number) =>
    table.set(`${name}.weight`, [outputs, inputs]).set(`${name}.bias`, [outputs]);
  norm('text_model.final_layer_norm', TW);
  norm('vision_model.pre_layrnorm', IW);
  norm('vision_model.post_layernorm', IW);
  const layer = (prefix: string, width: number, hidden: number) => {
    for (const part of ['q', 'k', 'v', 'out']) linear(`${prefix}.self_attn.${part}_proj`, width, width);
    norm(`${prefix}.layer_norm1`, width);
    norm(`${prefix}.layer_norm2`, width);
    linear(`${prefix}.mlp.fc1`, hidden, width);
    linear(`${prefix}.mlp.fc2`, width, hidden);
  };
  for (const i of [0, 1]) layer(`vision_model.encoder.layers.${i}`, IW, IH);
  for (const i of [0, 1, 2]) layer(`text_model.encoder.layers.${i}`, TW, TH);
  return table;
}

let dir: string;
let tokenizer: Tokenizer;
const weights = smallWeights();
const preprocess = { mean: [0.5, 0.4, 0.3], std: [0.2, 0.25, 0.3] } as const;

beforeAll(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'covey-exports-'));
  tokenizer = await loadTokenizer(trainBpe(madeUpCaptions(200), { vocabSize: 600 }), 10);
  expect(tokenizer.vocabSize).toBe(600);
  const model = { kind: 'clip', config: smallConfig, weights, preprocess, tokenizer } as const;
  await exportOpenClip(path.join(dir, 'open_clip'), model);
  await exportHf(path.join(dir, 'hf'), model);
});
afterAll(() => rm(dir, { recursive: true, force: true }));

const tensorsOf = async (file: string) => readSafetensors(await readFile(path.join(dir, file))).tensors;
const jsonOf = async (file: string) => JSON.parse(await readFile(path.join(dir, file), 'utf8'));
const shapesOf = (tensors: Awaited<ReturnType<typeof tensorsOf>>) =>
  Object.fromEntries([...tensors].map(([name, { shape }]) => [name, shape]));

/** Bit for bit what was exported. */
function expectSame(loaded: Pretrained): void {
  const { tokenizer: found, ...rest } = loaded as PretrainedClip;
  expect(rest).toEqual({ kind: 'clip', config: smallConfig, weights, preprocess });
  expect(found.sha256).toBe(tokenizer.sha256);
}

describe('the open_clip folder', () => {
  it('holds exactly the keys and shapes of the table, with the weights as they are', async () => {
    const tensors = await tensorsOf('open_clip/open_clip_model.safetensors');
    expect(shapesOf(tensors)).toEqual(Object.fromEntries(openClipTable()));
    for (const [name, { values }] of tensors) expect(values).toEqual(weights.get(name));
  });

  it('has a config with every size and the preprocessing', async () => {
    expect(await jsonOf('open_clip/open_clip_config.json')).toEqual({
      model_cfg: {
        embed_dim: 24,
        quick_gelu: false,
        vision_cfg: { image_size: 16, layers: 2, width: 32, head_width: 16, mlp_ratio: 3, patch_size: 4 },
        text_cfg: {
          context_length: 10,
          vocab_size: 600,
          hf_tokenizer_name: './',
          width: 48,
          heads: 4,
          layers: 3,
          mlp_ratio: 2,
        },
      },
      preprocess_cfg: {
        mean: [0.5, 0.4, 0.3],
        std: [0.2, 0.25, 0.3],
        interpolation: 'bicubic',
        resize_mode: 'shortest',
      },
    });
  });

  it('loads back to the same model', async () => {
    expectSame(await loadPretrainedPath(path.join(dir, 'open_clip')));
  });
});

describe('the transformers folder', () => {
  it('holds exactly the keys and shapes of the table', async () => {
    expect(shapesOf(await tensorsOf('hf/model.safetensors'))).toEqual(Object.fromEntries(huggingFaceTable()));
  });

  it('splits the packed projection into q, k, v by rows and transposes the two projections', async () => {
    const tensors = await tensorsOf('hf/model.safetensors');
    const packed = weights.get('transformer.resblocks.2.attn.in_proj_weight')!;
    const bias = weights.get('visual.transformer.resblocks.1.attn.in_proj_bias')!;
    for (const [i, part] of ['q', 'k', 'v'].entries()) {
      const text = tensors.get(`text_model.encoder.layers.2.self_attn.${part}_proj.weight`)!;
      expect(text.values).toEqual(packed.slice(i * TW * TW, (i + 1) * TW * TW));
      const image = tensors.get(`vision_model.encoder.layers.1.self_attn.${part}_proj.bias`)!;
      expect(image.values).toEqual(bias.slice(i * IW, (i + 1) * IW));
    }
    const projection = tensors.get('visual_projection.weight')!;
    const proj = weights.get('visual.proj')!;
    for (const [e, w] of [
      [0, 0],
      [3, 7],
      [23, 31],
    ] as const)
      expect(projection.values[e * IW + w]).toBe(proj[w * E + e]);
    const textProjection = tensors.get('text_projection.weight')!;
    expect(textProjection.values[5 * TW + 40]).toBe(weights.get('text_projection')![40 * E + 5]);
  });

  it('has a config that leaves nothing to the defaults', async () => {
    const shared = { hidden_act: 'gelu', layer_norm_eps: 1e-5, attention_dropout: 0, projection_dim: 24 };
    expect(await jsonOf('hf/config.json')).toEqual({
      architectures: ['CLIPModel'],
      model_type: 'clip',
      projection_dim: 24,
      logit_scale_init_value: 2.6592,
      dtype: 'float32',
      torch_dtype: 'float32',
      text_config: {
        model_type: 'clip_text_model',
        vocab_size: 600,
        hidden_size: 48,
        intermediate_size: 96,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        max_position_embeddings: 10,
        bos_token_id: 598,
        eos_token_id: 599,
        pad_token_id: 599,
        ...shared,
      },
      vision_config: {
        model_type: 'clip_vision_model',
        hidden_size: 32,
        intermediate_size: 96,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_channels: 3,
        image_size: 16,
        patch_size: 4,
        ...shared,
      },
    });
    expect(await jsonOf('hf/preprocessor_config.json')).toMatchObject({
      image_processor_type: 'CLIPImageProcessor',
      size: { shortest_edge: 16 },
      crop_size: { height: 16, width: 16 },
      resample: 3,
      rescale_factor: 1 / 255,
      image_mean: [0.5, 0.4, 0.3],
      image_std: [0.2, 0.25, 0.3],
      do_convert_rgb: true,
    });
  });

  it('has the files of a tokenizer that loads to the same ids', async () => {
    expect((await readdir(path.join(dir, 'hf'))).sort()).toEqual([
      'config.json',
      'merges.txt',
      'model.safetensors',
      'preprocessor_config.json',
      'special_tokens_map.json',
      'tokenizer.json',
      'tokenizer_config.json',
      'vocab.json',
    ]);
    const again = await loadTokenizer(await readFile(path.join(dir, 'hf/tokenizer.json'), 'utf8'), 10);
    expect(again.encode('an apple 3')).toEqual(tokenizer.encode('an apple 3'));
    expect(again.sha256).toBe(tokenizer.sha256);
  });

  it('loads back to the same model', async () => {
    expectSame(await loadPretrainedPath(path.join(dir, 'hf')));
  });
});

describe('what does not fit', () => {
  it('is refused with every wrong weight named before anything is written', async () => {
    const wrong = new Map(weights);
    wrong.delete('logit_scale');
    wrong.set('visual.proj', new Float32Array(3)).set('extra', new Float32Array(1));
    const target = path.join(dir, 'none');
    const attempt = exportHf(target, { kind: 'clip', config: smallConfig, weights: wrong, preprocess, tokenizer });
    await expect(attempt).rejects.toThrow(
      /visual.proj has 3 values for \[32,24\].*logit_scale is missing.*extra is not/,
    );
    await expect(readdir(target)).rejects.toThrow();
  });

  it('between weights and config is refused on loading', async () => {
    const target = path.join(dir, 'mixed');
    await exportHf(target, { kind: 'clip', config: smallConfig, weights, preprocess, tokenizer });
    const config = await jsonOf('mixed/config.json');
    config.text_config.vocab_size = 700;
    await writeFile(path.join(target, 'config.json'), JSON.stringify(config));
    await expect(loadPretrainedPath(target)).rejects.toThrow(/token_embedding.weight is \[600,48\], not \[700,48\]/);
    config.model_type = 'siglip';
    await writeFile(path.join(target, 'config.json'), JSON.stringify(config));
    await expect(loadPretrainedPath(target)).rejects.toMatchObject({ code: 'UNSUPPORTED' });
    await expect(loadPretrainedPath(path.join(target, 'none'))).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  it('is an open_clip config with another kind of tower', async () => {
    const target = path.join(dir, 'resnet');
    await exportOpenClip(target, { kind: 'clip', config: smallConfig, weights, preprocess, tokenizer });
    const config = await jsonOf('resnet/open_clip_config.json');
    config.model_cfg.vision_cfg.timm_model_name = 'resnet50';
    await writeFile(path.join(target, 'open_clip_config.json'), JSON.stringify(config));
    await expect(loadPretrainedPath(target)).rejects.toThrow(/timm_model_name/);
  });
});
