import { rowsOf } from '../weights.ts';
import type { Dimension, GraphWriter, TensorLookup } from './graph-writer.ts';

export interface BlocksOptions<V> {
  /** Key prefix up to the block number. */
  readonly prefix: string;
  readonly layers: number;
  readonly heads: number;
  readonly width: number;
  readonly quickGelu: boolean;
  readonly tokens: Dimension;
  /** Added to the attention scores [B,H,T,T], or null. */
  readonly mask: V | null;
  readonly eps: number;
}

/** Pre-LN residual blocks as models/clip/transformer.ts, written down. [B,T,D] → [B,T,D]. */
export function writeBlocks<V>(graph: GraphWriter<V>, input: V, tensor: TensorLookup, options: BlocksOptions<V>): V {
  let x = input;
  for (let block = 0; block < options.layers; block++) {
    const name = `${options.prefix}.${block}`;
    const normed = writeLayerNorm(graph, x, `${name}.ln_1`, tensor, options.eps);
    x = graph.add(x, writeAttention(graph, normed, `${name}.attn`, tensor, options));
    const second = writeLayerNorm(graph, x, `${name}.ln_2`, tensor, options.eps);
    const hidden = writeLinear(graph, second, `${name}.mlp.c_fc`, tensor);
    const activated = options.quickGelu ? graph.quickGelu(hidden) : graph.gelu(hidden);
    x = graph.add(x, writeLinear(graph, activated, `${name}.mlp.c_proj`, tensor));
  }
  return x;
}

export function writeLayerNorm<V>(graph: GraphWriter<V>, x: V, name: string, tensor: TensorLookup, eps: number): V {
  return graph.layerNorm(x, name, tensor(`${name}.weight`), tensor(`${name}.bias`), eps);
}

export function writeLinear<V>(graph: GraphWriter<V>, x: V, name: string, tensor: TensorLookup): V {
  return graph.linear(x, name, tensor(`${name}.weight`), tensor(`${name}.bias`));
}

/** softmax(q·kᵀ/√d + mask)·v per head, with q, k, v apart, as inference runtimes recognise it. */
function writeAttention<V>(
  graph: GraphWriter<V>,
  x: V,
  name: string,
  tensor: TensorLookup,
  { heads, width, tokens, mask }: BlocksOptions<V>,
): V {
  const headWidth = width / heads;
  const weight = tensor(`${name}.in_proj_weight`);
  const bias = tensor(`${name}.in_proj_bias`);
  const part = (index: number, letter: string, axes: readonly number[]) => {
    const [begin, end] = [index * width, (index + 1) * width];
    const projected = graph.linear(x, `${name}.${letter}_proj`, rowsOf(weight, begin, end), rowsOf(bias, begin, end));
    return graph.transpose(graph.reshape(projected, ['batch', tokens, heads, headWidth]), axes);
  };
  const q_BHTd = part(0, 'q', [0, 2, 1, 3]);
  const k_BHdT = part(1, 'k', [0, 2, 3, 1]);
  const v_BHTd = part(2, 'v', [0, 2, 1, 3]);
  const scale = graph.constant(`${name}.scale`, { shape: [], values: Float32Array.of(headWidth ** -0.5) });
  const scores = graph.matMul(graph.multiply(q_BHTd, scale), k_BHdT);
  const masked = mask === null ? scores : graph.add(scores, mask);
  const mixed_BTHd = graph.transpose(graph.matMul(graph.softmax(masked), v_BHTd), [0, 2, 1, 3]);
  return writeLinear(graph, graph.reshape(mixed_BTHd, ['batch', tokens, width]), `${name}.out_proj`, tensor);
}
