import { ABSENT, type SavedHandle, torchBackend } from '../backend/torch-backend.ts';
import { runFusedOp } from '../fused-op.ts';
import type { Tensor3D } from '../tf.ts';

/** See ops/attention.ts. */
export function fusedAttention(qkv_BT3D: Tensor3D, heads: number, causal: boolean): Tensor3D {
  const backend = torchBackend();
  const { addon } = backend;
  const [batch, tokens, packed] = qkv_BT3D.shape;
  return runFusedOp<SavedHandle>({
    name: 'CoveyAttention',
    inputs: { qkv: qkv_BT3D },
    forward: () => {
      const [out, logSumExp, ...kept] = addon.attention(backend.handleOf(qkv_BT3D), heads, causal);
      return {
        outputs: [backend.tensor(out, [batch, tokens, packed / 3])],
        saved: [backend.save(qkv_BT3D), backend.saveHandle(logSumExp), ...kept.map((it) => backend.saveOptional(it))],
      };
    },
    backward: ([dOut], _wanted, [qkv, logSumExp, ...rest]) => {
      const kept = rest.map(({ handle }) => (handle === ABSENT ? null : handle));
      const upstream = backend.handleOf(dOut!);
      const gradient = addon.attentionGradient(upstream, qkv!.handle, logSumExp!.handle, heads, causal, kept);
      return { qkv: backend.tensor(gradient, qkv_BT3D.shape) };
    },
  })[0] as Tensor3D;
}
