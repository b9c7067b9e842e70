import { torchBackend } from '../backend/torch-backend.ts';
import { runFusedOp } from '../fused-op.ts';
import type { Tensor, Tensor2D } from '../tf.ts';

/** See ops/embedding.ts. */
export function fusedEmbedding(table_VD: Tensor2D, ids_BT: Tensor): Tensor {
  const backend = torchBackend();
  const { addon } = backend;
  const [vocabulary, width] = table_VD.shape;
  return runFusedOp({
    name: 'CoveyEmbedding',
    inputs: { table: table_VD },
    forward: () => ({
      outputs: [
        backend.tensor(addon.embedding(backend.handleOf(table_VD), backend.handleOf(ids_BT)), [...ids_BT.shape, width]),
      ],
      saved: [backend.save(ids_BT)],
    }),
    backward: ([dy], _wanted, [ids]) => ({
      table: backend.tensor(addon.embeddingGradient(backend.handleOf(dy!), ids!.handle, vocabulary), table_VD.shape),
    }),
  })[0]!;
}
