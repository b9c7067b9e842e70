import { onTorch } from '../backend/active.ts';
import { fusedAddTokenAndPosition, fusedSelectTokens } from '../fused/tokens.ts';
import { add, concat, gather, reshape, type Tensor1D, type Tensor2D, type Tensor3D, tensor1d, tile } from '../tf.ts';
import { toCompute } from './precision.ts';

/**
 * [token; x] + position: puts one learned token before each sequence and adds the positional embedding.
 *
 * @param x_BND [B, N, D] in compute precision
 * @param token_D fp32, or null: then only the positions are added and T = N
 * @param position_TD fp32, T = N + 1
 * @returns [B, T, D] in x's precision
 */
export function addTokenAndPosition(x_BND: Tensor3D, token_D: Tensor1D | null, position_TD: Tensor2D): Tensor3D {
  if (onTorch()) return fusedAddTokenAndPosition(x_BND, token_D, position_TD);
  const [batch, , width] = x_BND.shape;
  const position = toCompute(position_TD, 'fp32');
  if (token_D === null) return add(x_BND, position);
  const token_B1D = tile(reshape(token_D, [1, 1, width]), [batch, 1, 1]);
  return add(concat([token_B1D, x_BND], 1), position);
}

/**
 * One token of each sequence: y[b] = x[b, index[b]].
 *
 * @param index_B an index per sequence, or one number for all
 * @returns [B, D] in x's precision
 */
export function selectTokens(x_BTD: Tensor3D, index_B: ArrayLike<number> | number): Tensor2D {
  if (onTorch()) return fusedSelectTokens(x_BTD, index_B);
  const [batch, tokens, width] = x_BTD.shape;
  const rows = new Int32Array(batch);
  for (let b = 0; b < batch; b++) rows[b] = b * tokens + (typeof index_B === 'number' ? index_B : index_B[b]!);
  return gather(reshape(x_BTD, [batch * tokens, width]), tensor1d(rows, 'int32')) as Tensor2D;
}
