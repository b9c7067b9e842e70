import type { HostTensor } from '../safetensors.ts';
import { rowsOf } from '../weights.ts';
import type { GraphWriter, TensorLookup } from './graph-writer.ts';
import { writeLayerNorm, writeLinear } from './transformer-graph.ts';

export interface PoolShape {
  readonly tokens: number;
  readonly heads: number;
  readonly width: number;
}

/**
 * What one query per picture and head draws from the tokens, as `attendOnce` of models/vision/attention-pool.ts.
 * @param scores [B,H,1,T], divided by √d already
 * @param values [B,T,D]
 * @returns [B,D]
 */
export function writeAttendOnce<V>(
  graph: GraphWriter<V>,
  scores: V,
  values: V,
  { tokens, heads, width }: PoolShape,
): V {
  const byHead = graph.reshape(values, ['batch', tokens, heads, width / heads]);
  const mixed = graph.matMul(graph.softmax(scores), graph.transpose(byHead, [0, 2, 1, 3]));
  return graph.reshape(mixed, ['batch', width]);
}

/**
 * SigLIP's attention pool of models/vision/attention-pool.ts, written down. The query is the same for every picture, so that a key's product with it is one
 * linear map of the token per head: q·(W·x + b) = (Wᵀq)·x + q·b.
 * @param x normalised tokens [B,T,D] @returns [B,D]
 */
export function writeAttentionPool<V>(
  graph: GraphWriter<V>,
  x: V,
  tensor: TensorLookup,
  { prefix, eps, ...shape }: PoolShape & { readonly prefix: string; readonly eps: number },
): V {
  const { tokens, heads, width } = shape;
  const { weight, bias } = scoresOfTokens(tensor, prefix, shape);
  const scores_BTH = graph.linear(x, `${prefix}.scores`, weight, bias);
  const scores = graph.reshape(graph.transpose(scores_BTH, [0, 2, 1]), ['batch', heads, 1, tokens]);
  const part = (kind: 'weight' | 'bias') => rowsOf(tensor(`${prefix}.kv.${kind}`), width, 2 * width);
  const values = graph.linear(x, `${prefix}.v`, part('weight'), part('bias'));
  const pooled = writeLinear(graph, writeAttendOnce(graph, scores, values, shape), `${prefix}.proj`, tensor);
  const normed = writeLayerNorm(graph, pooled, `${prefix}.norm`, tensor, eps);
  const hidden = graph.gelu(writeLinear(graph, normed, `${prefix}.mlp.fc1`, tensor));
  return graph.add(pooled, writeLinear(graph, hidden, `${prefix}.mlp.fc2`, tensor));
}

/** Wᵀq/√d and q·b/√d of every head, in double precision, rounded once: [H,D] and [H]. */
function scoresOfTokens(tensor: TensorLookup, prefix: string, { heads, width }: PoolShape) {
  const latent = tensor(`${prefix}.latent`).values;
  const [qWeight, qBias] = [tensor(`${prefix}.q.weight`).values, tensor(`${prefix}.q.bias`).values];
  const [kWeight, kBias] = [tensor(`${prefix}.kv.weight`).values, tensor(`${prefix}.kv.bias`).values];
  const depth = width / heads;
  const weight_HD = new Float64Array(heads * width);
  const bias_H = new Float64Array(heads);
  for (let row = 0; row < width; row++) {
    let q = qBias[row]!;
    for (let d = 0; d < width; d++) q += qWeight[row * width + d]! * latent[d]!;
    q /= Math.sqrt(depth);
    const head = Math.floor(row / depth);
    bias_H[head]! += q * kBias[row]!;
    for (let d = 0; d < width; d++) weight_HD[head * width + d]! += q * kWeight[row * width + d]!;
  }
  const weight: HostTensor = { shape: [heads, width], values: Float32Array.from(weight_HD) };
  const bias: HostTensor = { shape: [heads], values: Float32Array.from(bias_H) };
  return { weight, bias };
}
