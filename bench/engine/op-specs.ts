import type { OpSpec } from './protocol.ts';

/** ViT-B/32 at batch 32, 224²: 50 tokens a picture. */
const WIDTH = 768;
const ROWS = 32 * 50;

function linear(label: string, inputs: number, outputs: number): OpSpec {
  return { op: 'linear', name: `linear ${label} ${inputs}→${outputs}`, rows: ROWS, inputs, outputs };
}

function attention(batch: number, tokens: number, heads: number, causal = false): OpSpec {
  const name = `attention T=${tokens}${causal ? ' causal' : ''} B=${batch} H=${heads}`;
  return { op: 'attention', name, batch, tokens, heads, headWidth: 64, causal };
}

/** Six of the tower's twelve blocks: 43 M parameters, far beyond any cache. */
function adamW(): OpSpec {
  const block = [[3 * WIDTH, WIDTH], [3 * WIDTH], [WIDTH, WIDTH], [4 * WIDTH, WIDTH], [WIDTH, 4 * WIDTH], [WIDTH]];
  return { op: 'adamW', name: 'AdamW, 43 M parameters', shapes: Array.from({ length: 6 }, () => block).flat() };
}

/** The ops of a transformer step, at the shapes of ViT-B/32 where not said otherwise. */
export const OP_SPECS: readonly OpSpec[] = [
  linear('qkv', WIDTH, 3 * WIDTH),
  linear('out', WIDTH, WIDTH),
  linear('up', WIDTH, 4 * WIDTH),
  linear('down', 4 * WIDTH, WIDTH),
  attention(32, 50, 12),
  attention(64, 65, 4),
  attention(64, 77, 8, true),
  attention(8, 197, 12),
  { op: 'layerNorm', name: `layer norm ${ROWS}×${WIDTH}`, rows: ROWS, width: WIDTH },
  { op: 'addLayerNorm', name: `add + layer norm ${ROWS}×${WIDTH}`, rows: ROWS, width: WIDTH },
  { op: 'gelu', name: `gelu ${ROWS}×${4 * WIDTH}`, rows: ROWS, width: 4 * WIDTH },
  { op: 'block', name: 'residual block ViT-B/32', batch: 32, tokens: 50, width: WIDTH, heads: 12 },
  { op: 'block', name: 'residual block D=256 T=65 B=64', batch: 64, tokens: 65, width: 256, heads: 4 },
  adamW(),
];

/** A residual block's parameters by open_clip's names, in the order in which both sides make them. */
export function blockShapes(width: number): readonly (readonly [name: string, ...shape: number[]])[] {
  return [
    ['ln_1.weight', width],
    ['ln_1.bias', width],
    ['attn.in_proj_weight', 3 * width, width],
    ['attn.in_proj_bias', 3 * width],
    ['attn.out_proj.weight', width, width],
    ['attn.out_proj.bias', width],
    ['ln_2.weight', width],
    ['ln_2.bias', width],
    ['mlp.c_fc.weight', 4 * width, width],
    ['mlp.c_fc.bias', 4 * width],
    ['mlp.c_proj.weight', width, 4 * width],
    ['mlp.c_proj.bias', width],
  ];
}
