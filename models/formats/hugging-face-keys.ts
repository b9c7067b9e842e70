import { concatenated } from '../../common/concatenated.ts';
import { assert } from '../../common/errors.ts';
import type { HostTensor } from './safetensors.ts';
import { rowsOf, transposed } from './weights.ts';

/**
 * open_clip keys ↔ transformers' CLIPModel keys (`convert_clip_original_pytorch_to_hf.py`) and, of an image tower with SigLIP's attention pool, those of
 * SiglipVisionModel (`modeling_siglip.py`). The packed in_proj of a block is split into q, k, v, and q and kv of the pool are packed to one in_proj;
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
  'visual.conv1.bias': 'vision_model.embeddings.patch_embedding.bias',
  'visual.positional_embedding': 'vision_model.embeddings.position_embedding.weight',
  'visual.attn_pool.latent': 'vision_model.head.probe',
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

const IN_POOL: Readonly<Record<string, string>> = {
  proj: 'attention.out_proj',
  norm: 'layernorm',
  'mlp.fc1': 'mlp.fc1',
  'mlp.fc2': 'mlp.fc2',
};

const TRANSPOSED = new Set(['text_projection', 'visual.proj']);
const BLOCK = /^(visual\.)?transformer\.resblocks\.(\d+)\.(.+)\.(weight|bias)$/;
const IN_PROJ = /^(visual\.)?transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)$/;
const POOL = /^visual\.attn_pool\.(.+)\.(weight|bias)$/;

const tower = (visual: string | undefined) => (visual ? 'vision_model' : 'text_model');

/** Tensors whose rows, one after the other, are the same matrix on both sides, and how the rows are shared out among them. */
interface Correspondence {
  readonly ours: readonly string[];
  readonly ourShares: readonly number[];
  readonly theirs: readonly string[];
  readonly theirShares: readonly number[];
}

/** What an open_clip key belongs to. The second of two keys that are packed into one belongs to the first's: undefined. */
function correspondence(key: string): Correspondence | undefined {
  const packed = IN_PROJ.exec(key);
  if (packed) {
    const [, visual, layer, kind] = packed;
    const prefix = `${tower(visual)}.encoder.layers.${layer}.self_attn`;
    const theirs = ['q', 'k', 'v'].map((part) => `${prefix}.${part}_proj.${kind}`);
    return { ours: [key], ourShares: [3], theirs, theirShares: [1, 1, 1] };
  }
  const [, part, kind] = POOL.exec(key) ?? [];
  if (part === 'kv') return undefined;
  if (part === 'q') {
    const ours = [key, `visual.attn_pool.kv.${kind}`];
    return { ours, ourShares: [1, 2], theirs: [`vision_model.head.attention.in_proj_${kind}`], theirShares: [3] };
  }
  return { ours: [key], ourShares: [1], theirs: [renamedKey(key)], theirShares: [1] };
}

function renamedKey(key: string): string {
  const top = Object.hasOwn(TOP_LEVEL, key) ? TOP_LEVEL[key] : undefined;
  if (top) return top;
  const [, inPool, poolKind] = POOL.exec(key) ?? [];
  if (inPool !== undefined) {
    assert(IN_POOL[inPool], 'every parameter of the pool has a name in transformers', { key });
    return `vision_model.head.${IN_POOL[inPool]}.${poolKind}`;
  }
  const match = BLOCK.exec(key);
  const part = match ? IN_BLOCK[match[3]!] : undefined;
  assert(match && part, 'every parameter has a name in transformers', { key });
  return `${tower(match[1])}.encoder.layers.${match[2]}.${part}.${match[4]}`;
}

/** open_clip tensors as transformers names and lays them out. */
export function toHuggingFace(tensors: ReadonlyMap<string, HostTensor>): Map<string, HostTensor> {
  const out = new Map<string, HostTensor>();
  for (const key of tensors.keys()) {
    const found = correspondence(key);
    if (found === undefined) continue;
    const { ours, theirs, theirShares } = found;
    const parts = ours.map((name) => tensors.get(name)!);
    for (const [i, tensor] of sharedOut(parts, theirShares).entries()) {
      out.set(theirs[i]!, TRANSPOSED.has(key) ? transposed(tensor) : tensor);
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
  const out = new Map<string, HostTensor>();
  for (const key of openClipKeys) {
    const found = correspondence(key);
    if (found === undefined) continue;
    const { ours, ourShares, theirs } = found;
    const parts = theirs.flatMap((name) => rest.get(name) ?? []);
    for (const name of theirs) rest.delete(name);
    if (parts.length < theirs.length) continue;
    for (const [i, tensor] of sharedOut(parts, ourShares).entries()) {
      out.set(ours[i]!, TRANSPOSED.has(key) && tensor.shape.length === 2 ? transposed(tensor) : tensor);
    }
  }
  return new Map([...out, ...rest]);
}

/** The rows of all parts, cut anew by shares of them. */
function sharedOut(parts: readonly HostTensor[], shares: readonly number[]): HostTensor[] {
  if (parts.length === 1 && shares.length === 1) return [...parts];
  const whole = stackedRows(parts);
  const rowsOfShare = whole.shape[0]! / shares.reduce((sum, share) => sum + share, 0);
  let begin = 0;
  return shares.map((share) => {
    const end = begin + share * rowsOfShare;
    const part = rowsOf(whole, begin, end);
    begin = end;
    return part;
  });
}

function stackedRows(parts: readonly HostTensor[]): HostTensor {
  const first = parts[0]!;
  if (parts.length === 1) return first;
  const rows = parts.reduce((sum, part) => sum + part.shape[0]!, 0);
  return { shape: [rows, ...first.shape.slice(1)], values: concatenated(parts.map(({ values }) => values)) };
}
