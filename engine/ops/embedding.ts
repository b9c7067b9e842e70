import { onTorch } from '../backend/active.ts';
import { fusedEmbedding } from '../fused/embedding.ts';
import { gather, type Tensor, type Tensor2D } from '../tf.ts';

/**
 * Rows of a table by id. The table's gradient is dense fp32; rows used several times are summed in the order of the ids.
 *
 * @param table_VD fp32
 * @param ids_BT int32, any shape; every id in [0, V)
 * @returns [...ids, D] fp32
 */
export function embedding(table_VD: Tensor2D, ids_BT: Tensor): Tensor {
  if (onTorch()) return fusedEmbedding(table_VD, ids_BT);
  return gather(table_VD, ids_BT as Tensor2D);
}
