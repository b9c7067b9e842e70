import { assert } from '../../common/errors.ts';
import type { HostTensor } from './safetensors.ts';
import { transposed } from './weights.ts';

/**
 * open_clip keys ↔ transformers' CLIPModel keys (`convert_clip_original_pytorch_to_hf.py`). The packed in_proj is split into q, k, v;
 * the two projections are transposed; everything else is renamed only.
 */

const TOP_LEVEL: Readonly<Record<string, string>> = {
  logit_scale: 'logit_scale',
  text_projection: 'text_projection.weight',
  'visual.proj': 'visual_projection.weight',
  'token_embedding.weight': 'text_model.embeddings.token_embedding.weight',
  positional_embedding: 'text_model.embeddings.position_embedding.weight',
  'ln_final.weight': 'text_model.final_layer_norm.weight',
  'ln_final.bias': 'text_model.final_layer_norm.bias',
  'visual.class_embedding': 'vision_model.embeddings.class_embedding',
  'visual.conv1.weight': 'vision_model.embeddings.patch_embedding.weight',
  'visual.positional_embedding': 'vision_model.embeddings.position_embedding.weight',
  // transformers' own spelling
  'visual.ln_pre.weight': 'vision_model.pre_layrnorm.weight',
  'visual.ln_pre.bias': 'vision_model.pre_layrnorm.bias',
  'visual.ln_post.weight': 'vision_model.post_layernorm.weight',
  'visual.ln_post.bias': 'vision_model.post_layernorm.bias',
};

const IN_BLOCK: Readonly<Record<string, string>> = {
  ln_1: 'layer_norm1',
  ln_2: 'layer_norm2',
  'attn.out_proj': 'self_attn.out_proj',
  'mlp.c_fc': 'mlp.fc1',
  'mlp.c_proj': 'mlp.fc2',
};

const TRANSPOSED = new Set(['text_projection', 'visual.proj']);
const BLOCK = /^(visual\.)?transformer\.resblocks\.(\d+)\.(.+)\.(weight|bias)$/;
const IN_PROJ = /^(visual\.)?transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)$/;

const tower = (visual: string | undefined) => (visual ? 'vision_model' : 'text_model');

/** The three HF keys of a packed projection, in the order of its rows, or undefined for another key. */
function splitKeys(key: string): string[] | undefined {
  const match = IN_PROJ.exec(key);
  if (!match) return undefined;
  const [, visual, layer, kind] = match;
  return ['q', 'k', 'v'].map((part) => `${tower(visual)}.encoder.layers.${layer}.self_attn.${part}_proj.${kind}`);
}

function renamedKey(key: string): string {
  const top = Object.hasOwn(TOP_LEVEL, key) ? TOP_LEVEL[key] : undefined;
  if (top) return top;
  const match = BLOCK.exec(key);
  const part = match ? IN_BLOCK[match[3]!] : undefined;
  assert(match && part, 'every parameter has a name in transformers', { key });
  return `${tower(match[1])}.encoder.layers.${match[2]}.${part}.${match[4]}`;
}

/** open_clip tensors as transformers names and lays them out. */
export function toHuggingFace(tensors: ReadonlyMap<string, HostTensor>): Map<string, HostTensor> {
  const out = new Map<string, HostTensor>();
  for (const [key, tensor] of tensors) {
    const parts = splitKeys(key);
    if (!parts) {
      out.set(renamedKey(key), TRANSPOSED.has(key) ? transposed(tensor) : tensor);
      continue;
    }
    const [rows, ...rest] = tensor.shape;
    const size = tensor.values.length / 3;
    for (const [i, part] of parts.entries()) {
      out.set(part, { shape: [rows! / 3, ...rest], values: tensor.values.subarray(i * size, (i + 1) * size) });
    }
  }
  return out;
}

/**
 * The way back, for the given open_clip keys. A key whose parts are not all there is left out; keys of transformers that no open_clip
 * key asks for keep their name, so that the caller's check names both.
 */
export function fromHuggingFace(
  tensors: ReadonlyMap<string, HostTensor>,
  openClipKeys: Iterable<string>,
): Map<string, HostTensor> {
  const rest = new Map(tensors);
  const take = (key: string) => {
    const tensor = rest.get(key);
    rest.delete(key);
    return tensor;
  };
  const out = new Map<string, HostTensor>();
  for (const key of openClipKeys) {
    const parts = splitKeys(key)?.map(take);
    const tensor = parts ? stackedRows(parts) : take(renamedKey(key));
    if (tensor) out.set(key, TRANSPOSED.has(key) && tensor.shape.length === 2 ? transposed(tensor) : tensor);
  }
  return new Map([...out, ...rest]);
}

function stackedRows(parts: readonly (HostTensor | undefined)[]): HostTensor | undefined {
  const present = parts.filter((part) => part !== undefined);
  const first = present[0];
  if (!first || present.length < parts.length) return undefined;
  const values = new Float32Array(present.reduce((sum, part) => sum + part.values.length, 0));
  let offset = 0;
  for (const part of present) {
    values.set(part.values, offset);
    offset += part.values.length;
  }
  const rows = present.reduce((sum, part) => sum + part.shape[0]!, 0);
  return { shape: [rows, ...first.shape.slice(1)], values };
}
