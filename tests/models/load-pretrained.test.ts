import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openObjectStore } from '../../common/objectstore/open.ts';
import { initialValues } from '../../models/clip/initial-values.ts';
import { parameterShapes } from '../../models/clip/parameter-shapes.ts';
import { memorySource, storeFiles } from '../../models/formats/byte-source.ts';
import { exportCovey } from '../../models/formats/covey-format.ts';
import { exportHf, readHfConfig } from '../../models/formats/hugging-face.ts';
import { loadPretrained, loadPretrainedPath } from '../../models/formats/load-pretrained.ts';
import { exportOpenClip, readOpenClipConfig } from '../../models/formats/open-clip.ts';
import { resizePositions } from '../../models/formats/position-resize.ts';
import { backboneOf, type PretrainedClip } from '../../models/formats/pretrained.ts';
import { type HostTensor, readSafetensors, writeSafetensors } from '../../models/formats/safetensors.ts';
import { readStateDict } from '../../models/formats/state-dict.ts';
import { CLIP_PREPROCESS, shapedWeights } from '../../models/formats/weights.ts';
import { resolveModelConfig } from '../../models/model-config.ts';
import { presets } from '../../models/presets.ts';
import { trainBpe } from '../../models/tokenizer/bpe-trainer.ts';
import { loadTokenizer } from '../../models/tokenizer/tokenizer.ts';
import { backboneSpecs } from '../../models/vision/backbone.ts';
import { madeUpCaptions, smallConfig, smallWeights } from './small-model.ts';

let dir: string;
let model: PretrainedClip;
let tokenizerJson: string;
const weights = smallWeights();
const fixture = (name: string) => readFile(new URL(`fixtures/formats/${name}`, import.meta.url));

beforeAll(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'covey-load-'));
  tokenizerJson = trainBpe(madeUpCaptions(200), { vocabSize: 600 });
  const tokenizer = await loadTokenizer(tokenizerJson, smallConfig.text.contextLength);
  const preprocess = { mean: [0.5, 0.4, 0.3], std: [0.2, 0.25, 0.3] } as const;
  model = { kind: 'clip', config: smallConfig, weights, preprocess, tokenizer };
  await exportOpenClip(path.join(dir, 'open_clip'), model);
  await exportHf(path.join(dir, 'hf'), model);
});
afterAll(() => rm(dir, { recursive: true, force: true }));

const plain = ({ tokenizer: _, ...rest }: PretrainedClip) => rest;
const load = async (...parameters: Parameters<typeof loadPretrainedPath>) => {
  const loaded = await loadPretrainedPath(...parameters);
  if (loaded.kind !== 'clip') throw new TypeError('not a CLIP');
  return loaded;
};

/** A safetensors file of one element type, from float32 values that the type holds exactly. */
function narrowed(tensors: ReadonlyMap<string, HostTensor>, dtype: 'BF16' | 'F16'): Uint8Array {
  const header: Record<string, unknown> = {};
  const parts: Uint16Array[] = [];
  let at = 0;
  for (const [name, { shape, values }] of tensors) {
    const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
    const half = (word: number) => {
      const exponent = ((word >>> 23) & 0xff) - 112;
      return ((word >>> 16) & 0x8000) | (exponent <= 0 ? 0 : (exponent << 10) | ((word >>> 13) & 0x3ff));
    };
    parts.push(Uint16Array.from(bits, dtype === 'BF16' ? (word) => word >>> 16 : half));
    header[name] = { dtype, shape, data_offsets: [at, at + 2 * values.length] };
    at += 2 * values.length;
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, ...parts.map((part) => Buffer.from(part.buffer))]);
}

describe('weights of a torch archive', () => {
  const base = Float32Array.from({ length: 12 }, (_, i) => i / 8);
  it('are read in every float type and through strides; integer buffers are left out', async () => {
    const { tensors, fromOpenAi } = await readStateDict(memorySource('x.pt', await fixture('state-dict.pt')));
    expect(fromOpenAi).toBe(false);
    expect(Object.fromEntries(tensors)).toEqual({
      plain: { shape: [3, 4], values: base },
      half: { shape: [3, 4], values: base },
      brain: { shape: [3], values: Float32Array.of(1, -2.5, 3) },
      transposed: { shape: [4, 3], values: Float32Array.from(base, (_, i) => ((i % 3) * 4 + Math.floor(i / 3)) / 8) },
      scalar: { shape: [], values: Float32Array.of(0.5) },
    });
  });

  it('are found in a training checkpoint, below a data-parallel wrapper', async () => {
    const { tensors } = await readStateDict(memorySource('x.pt', await fixture('training.pt')));
    expect([...tensors.keys()]).toEqual(['plain', 'half', 'brain', 'transposed', 'scalar']);
  });
});

describe('positions', () => {
  it('are resized as open_clip does with PyTorch, the class token kept', async () => {
    const cases = JSON.parse((await fixture('position-resize.json')).toString()) as {
      grid: number;
      positions: number[];
      resized: number[];
    }[];
    expect(cases).toHaveLength(5);
    for (const { grid, positions, resized } of cases) {
      const given = { shape: [positions.length / 3, 3], values: Float32Array.from(positions) };
      const found = resizePositions(given, { side: grid, firstTokens: 1 });
      expect(found.shape).toEqual([grid ** 2 + 1, 3]);
      expect(found.values.slice(0, 3)).toEqual(given.values.slice(0, 3));
      const worst = Math.max(...resized.map((value, i) => Math.abs(value - found.values[i]!)));
      expect(worst).toBeLessThan(2e-6);
      const places = { shape: [given.shape[0]! - 1, 3], values: given.values.subarray(3) };
      expect(resizePositions(places, { side: grid, firstTokens: 0 }).values).toEqual(found.values.slice(3));
    }
  });

  it('of a loaded model follow the size of picture that is asked for, and nothing else changes', async () => {
    const larger = await load(path.join(dir, 'hf'), { imageSize: 24 });
    expect(larger.config.vision.imageSize).toBe(24);
    const name = 'visual.positional_embedding';
    const own = { shape: [17, 32], values: weights.get(name)! };
    expect(larger.weights.get(name)).toEqual(resizePositions(own, { side: 6, firstTokens: 1 }).values);
    for (const [key, values] of weights) if (key !== name) expect(larger.weights.get(key)).toEqual(values);
  });

  it('that are no square grid are refused', () => {
    const odd = { shape: [7, 2], values: new Float32Array(14) };
    expect(() => resizePositions(odd, { side: 3, firstTokens: 1 })).toThrow(/not a class token/);
    expect(() => resizePositions(odd, { side: 3, firstTokens: 0 })).toThrow(/is not a square grid/);
  });
});

describe('a bare file of weights', () => {
  const shaped = () => shapedWeights(parameterShapes(smallConfig), weights);
  const write = async (name: string, bytes: Uint8Array) => {
    await mkdir(path.join(dir, 'bare'), { recursive: true });
    await writeFile(path.join(dir, 'bare', name), bytes);
    return path.join(dir, 'bare', name);
  };

  it('is loaded where the model is named, also from bfloat16 and float16', async () => {
    for (const dtype of ['BF16', 'F16'] as const) {
      const exact = new Map(
        [...shaped()].map(([name, { shape, values }]) => [
          name,
          { shape, values: values.map((v) => Math.round(v * 8) / 8) },
        ]),
      );
      const file = await write(`${dtype}.safetensors`, narrowed(exact, dtype));
      const loaded = await load(file, { model: smallConfig, tokenizerJson });
      for (const [name, { values }] of exact) expect(loaded.weights.get(name), name).toEqual(values);
      expect(loaded.config).toEqual(smallConfig);
    }
  });

  it('shows its sizes itself, but not its activation', async () => {
    const config = {
      ...smallConfig,
      text: { ...smallConfig.text, width: 64, heads: 1 },
      vision: { ...smallConfig.vision, width: 64, headWidth: 64 },
    };
    const tensors = shapedWeights(parameterShapes(config), smallWeights(config));
    const file = await write('mine.safetensors', writeSafetensors(tensors));
    await expect(load(file)).rejects.toThrow(/has no open_clip_config.json.*--quick-gelu/);
    expect((await load(file, { quickGelu: false, tokenizerJson })).config).toEqual(config);
    // OpenAI's state dicts are known by the facts they hold.
    const fact = { shape: [], values: Float32Array.of(16) };
    const openAi = await write(
      'openai.safetensors',
      writeSafetensors(new Map([...tensors, ['input_resolution', fact]])),
    );
    expect((await load(openAi, { tokenizerJson })).config).toEqual({ ...config, quickGelu: true });
  });

  it('with a tower of torchvision or timm, a missing key or a foreign key is refused by name', async () => {
    const missing = shaped();
    missing.delete('ln_final.bias');
    missing.set('visual.extra', { shape: [1], values: new Float32Array(1) });
    const file = await write('missing.safetensors', writeSafetensors(missing));
    await expect(load(file, { model: smallConfig, tokenizerJson })).rejects.toThrow(
      /ln_final.bias is missing; visual.extra is not the model's/,
    );
    for (const [key, message] of [
      ['visual.layer1.0.conv1.weight', /a ResNet without attention pool/],
      ['visual.trunk.patch_embed.proj.weight', /timm \(keys visual.trunk/],
    ] as const) {
      const one = new Map([[key, { shape: [1], values: new Float32Array(1) }]]);
      const other = await write('other.safetensors', writeSafetensors(one));
      await expect(load(other, { quickGelu: true })).rejects.toThrow(message);
    }
  });

  it('without CLIP’s vocabulary needs a tokenizer', async () => {
    const file = await write('vocabulary.safetensors', writeSafetensors(shaped()));
    await expect(load(file, { model: smallConfig })).rejects.toThrow(/has no tokenizer.json.*600 tokens/);
  });
});

describe('a folder', () => {
  it('goes covey → transformers → covey → open_clip → covey without losing a bit', async () => {
    const first = await load(path.join(dir, 'hf'));
    await exportOpenClip(path.join(dir, 'again'), first);
    const second = await load(path.join(dir, 'again'));
    expect(plain(second)).toEqual(plain(model));
    expect(second.tokenizer.sha256).toBe(model.tokenizer.sha256);
    const file = (folder: string) => readFile(path.join(dir, folder, 'open_clip_model.safetensors'));
    expect((await file('again')).equals(await file('open_clip'))).toBe(true);
  });

  it('may hold integer buffers, as older files of transformers do', async () => {
    await exportHf(path.join(dir, 'old'), model);
    const file = path.join(dir, 'old', 'model.safetensors');
    const bytes = await readFile(file);
    const headerBytes = Number(bytes.readBigUInt64LE());
    const header = JSON.parse(bytes.subarray(8, 8 + headerBytes).toString());
    const dataBytes = bytes.length - 8 - headerBytes;
    header['text_model.embeddings.position_ids'] = {
      dtype: 'I64',
      shape: [1, 2],
      data_offsets: [dataBytes, dataBytes + 16],
    };
    const json = Buffer.from(JSON.stringify(header));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(json.length));
    await writeFile(file, Buffer.concat([length, json, bytes.subarray(8 + headerBytes), Buffer.alloc(16)]));
    expect(plain(await load(path.join(dir, 'old')))).toEqual(plain(model));
  });

  it('is read from an object store by ranges', async () => {
    const store = openObjectStore(`memory://load-pretrained-${process.pid}`);
    for (const name of ['config.json', 'model.safetensors', 'tokenizer.json', 'preprocessor_config.json']) {
      await store.put(`models/small/${name}`, await readFile(path.join(dir, 'hf', name)));
    }
    const loaded = await loadPretrained(storeFiles(store, 'models/small'));
    expect(plain(loaded as PretrainedClip)).toEqual(plain(model));
    await expect(loadPretrained(storeFiles(store, 'elsewhere'))).rejects.toThrow(/has none of covey_model/);
    await store.close();
  });

  it('of a backbone holds the image tower alone, in both layouts', async () => {
    const backbone = backboneOf(model);
    await exportHf(path.join(dir, 'backbone-hf'), backbone);
    await exportOpenClip(path.join(dir, 'backbone-open-clip'), backbone);
    expect(await loadPretrainedPath(path.join(dir, 'backbone-hf'))).toEqual(backbone);
    expect(await loadPretrainedPath(path.join(dir, 'backbone-open-clip'))).toEqual(backbone);
    const { tensors } = readSafetensors(await readFile(path.join(dir, 'backbone-hf', 'model.safetensors')));
    expect([...tensors.keys()].every((key) => key.startsWith('vision_model.'))).toBe(true);
    expect(tensors.size).toBe(5 + 2 + 2 * 16);
    expect([...backbone.weights.keys()]).not.toContain('visual.proj');
  });
});

describe('covey’s own layout', () => {
  it('holds every tower to the bit, with what no gradient changes', async () => {
    const towers = [
      { kind: 'resnet', imageSize: 32, depth: 18, stem: 'cifar', width: 8 },
      { ...smallConfig.vision, pooling: 'map' },
      { ...smallConfig.vision, positions: 'sincos', lnPre: false, layerNormEps: 1e-6 },
    ] as const;
    for (const [i, tower] of towers.entries()) {
      const { vision } = resolveModelConfig({ ...smallConfig, vision: tower });
      const values = new Map(backboneSpecs(vision).map((spec) => [spec.name, initialValues(spec, 9)]));
      const backbone = {
        kind: 'backbone',
        vision,
        quickGelu: true,
        weights: values,
        preprocess: CLIP_PREPROCESS,
      } as const;
      await exportCovey(path.join(dir, `own-${i}`), backbone);
      expect(await loadPretrainedPath(path.join(dir, `own-${i}`))).toEqual(backbone);
    }
    await exportCovey(path.join(dir, 'own-clip'), model);
    expect(plain(await load(path.join(dir, 'own-clip')))).toEqual(plain(model));
  });
});

describe('configs that others publish', () => {
  it('openai/clip-vit-base-patch32 leaves out what equals the defaults', () => {
    const described = readHfConfig(
      JSON.stringify({
        model_type: 'clip',
        text_config: { hidden_act: 'quick_gelu', eos_token_id: 2 },
        vision_config: {},
      }),
      'config.json',
      undefined,
    );
    expect(described).toEqual({
      kind: 'clip',
      config: presets['ViT-B-32-quickgelu'],
      preprocess: CLIP_PREPROCESS,
      tokenizer: 'beside',
    });
  });

  it('open_clip’s may spell out defaults, and what they change is refused', () => {
    const config = (vision: object) =>
      JSON.stringify({
        model_cfg: {
          embed_dim: 512,
          vision_cfg: { image_size: 224, layers: 12, width: 768, patch_size: 16, ...vision },
          text_cfg: { context_length: 77, vocab_size: 49408, width: 512, heads: 8, layers: 12 },
        },
        preprocess_cfg: { mean: [0.48145466, 0.4578275, 0.40821073], std: [0.26862954, 0.26130258, 0.27577711] },
      });
    const described = readOpenClipConfig(
      config({ patch_dropout: 0.5, attentional_pool: false, ls_init_value: null }),
      'x',
    );
    expect(described).toMatchObject({ kind: 'clip', config: presets['ViT-B-16'], tokenizer: 'clip' });
    expect(() => readOpenClipConfig(config({ attentional_pool: true }), 'x')).toThrow(/attentional_pool/);
    expect(() => readOpenClipConfig(config({ pool_type: 'avg' }), 'x')).toThrow(/pool_type/);
    expect(() => readOpenClipConfig(config({ timm_model_name: 'vit' }), 'x')).toThrow(/timm_model_name/);
  });
});
