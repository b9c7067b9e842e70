import {
  layerNorm,
  linear,
  type MlpLayer,
  mlp,
  type Tensor,
  type Tensor1D,
  type Tensor2D,
  tf,
  toFloat32,
} from '../../engine/index.ts';
import type { ParameterLookup } from '../clip/transformer.ts';
import { linearSpecs, normal, normSpecs, type ParameterSpec } from '../parameter-spec.ts';

/**
 * Attention with one query per picture over its tokens: the poolings of CLIP's ResNet (the query is the mean) and SigLIP (the query is learnt).
 * Shapes: B pictures, T tokens, D width, h heads, d = D/h.
 *
 * @param q_BD float32, or [1,D] for one query for all
 * @returns float32 [B,D], heads concatenated
 */
export function attendOnce(q_BD: Tensor2D, k_BTD: Tensor, v_BTD: Tensor, heads: number): Tensor2D {
  const [batch, tokens, width] = k_BTD.shape as [number, number, number];
  const depth = width / heads;
  const byHead = (x_BTD: Tensor) =>
    tf.transpose(tf.reshape(toFloat32(x_BTD), [batch, tokens, heads, depth]), [0, 2, 1, 3]);
  const q_Bhd1 = tf.reshape(q_BD, [q_BD.shape[0], heads, depth, 1]);
  const q = q_BD.shape[0] === batch ? q_Bhd1 : tf.tile(q_Bhd1, [batch, 1, 1, 1]);
  const scores_BhT = tf.reshape(tf.mul(tf.matMul(byHead(k_BTD), q), 1 / Math.sqrt(depth)), [batch, heads, 1, tokens]);
  return tf.reshape(tf.matMul(tf.softmax(scores_BhT), byHead(v_BTD)), [batch, width]) as Tensor2D;
}

/** The numbers of timm's `AttentionPoolLatent`, under its keys. */
export function attentionPoolSpecs(prefix: string, width: number, hidden: number): ParameterSpec[] {
  return [
    { name: `${prefix}.latent`, shape: [1, 1, width], initial: normal(width ** -0.5) },
    ...linearSpecs(`${prefix}.q`, width, width),
    ...linearSpecs(`${prefix}.kv`, width, 2 * width),
    ...linearSpecs(`${prefix}.proj`, width, width),
    ...normSpecs(`${prefix}.norm`, width),
    ...linearSpecs(`${prefix}.mlp.fc1`, width, hidden),
    ...linearSpecs(`${prefix}.mlp.fc2`, hidden, width),
  ];
}

/**
 * SigLIP's MAP head (Lee et al. 2019; Zhai et al. 2022, big_vision `models/vit.py:MAPHead`): a learnt query attends to all tokens; then a
 * perceptron with a skip.
 * @param x_BTD normalised tokens
 * @returns float32 [B,D]
 */
export function attentionPool(
  x_BTD: Tensor,
  parameter: ParameterLookup,
  { prefix, heads, eps }: { readonly prefix: string; readonly heads: number; readonly eps: number },
): Tensor2D {
  const get: ParameterLookup = (name) => parameter(`${prefix}.${name}`);
  const layer = (name: string): MlpLayer => ({
    weight: get<Tensor2D>(`${name}.weight`),
    bias: get<Tensor1D>(`${name}.bias`),
  });
  const dense = (x: Tensor, name: string) => linear(x, layer(name).weight, layer(name).bias);
  const width = x_BTD.shape[2]!;
  return tf.tidy(() => {
    const q_1D = dense(tf.reshape(get('latent'), [1, width]), 'q') as Tensor2D;
    const [k_BTD, v_BTD] = tf.split(dense(toFloat32(x_BTD), 'kv'), 2, 2) as [Tensor, Tensor];
    const pooled_BD = dense(attendOnce(q_1D, k_BTD, v_BTD, heads), 'proj');
    const normed_BD = layerNorm(pooled_BD, get('norm.weight'), get<Tensor1D>('norm.bias'), eps);
    return tf.add(pooled_BD, mlp(normed_BD, layer('mlp.fc1'), layer('mlp.fc2'), 'gelu')) as Tensor2D;
  });
}
