import { torchBackend } from '../backend/torch-backend.ts';
import { runFusedOp } from '../fused-op.ts';
import { reshape, slice, type Tensor, type Tensor1D, type Tensor2D, type Tensor3D } from '../tf.ts';

/** See ops/tokens.ts. */
export function fusedAddTokenAndPosition(x_BND: Tensor3D, token_D: Tensor1D | null, position_TD: Tensor2D): Tensor3D {
  const backend = torchBackend();
  const { addon } = backend;
  const [batch, length, width] = x_BND.shape;
  const first = token_D === null ? 0 : 1;
  return runFusedOp({
    name: 'CoveyAddTokenAndPosition',
    inputs:
      token_D === null ? { x: x_BND, position: position_TD } : { x: x_BND, token: token_D, position: position_TD },
    forward: () => {
      const token = token_D === null ? null : backend.handleOf(token_D);
      const sum = addon.addTokenAndPosition(backend.handleOf(x_BND), token, backend.handleOf(position_TD));
      return { outputs: [backend.tensor(sum, [batch, length + first, width])], saved: [] };
    },
    backward: ([dy], wanted) => {
      const result: Record<string, Tensor> = {};
      if (wanted.has('x')) result['x'] = first === 0 ? dy! : slice(dy!, [0, 1, 0], [batch, length, width]);
      if (wanted.has('position') || wanted.has('token')) {
        const gradient = backend.tensor(addon.positionGradient(backend.handleOf(dy!)), position_TD.shape);
        result['position'] = gradient;
        // Every sequence starts with the token, so its gradient is the first position's.
        if (token_D !== null) result['token'] = reshape(slice(gradient, [0, 0], [1, width]), token_D.shape);
      }
      return result;
    },
  })[0] as Tensor3D;
}

/** See ops/tokens.ts. */
export function fusedSelectTokens(x_BTD: Tensor3D, index_B: ArrayLike<number> | number): Tensor2D {
  const backend = torchBackend();
  const { addon } = backend;
  const [batch, tokens, width] = x_BTD.shape;
  const index = typeof index_B === 'number' ? new Int32Array(batch).fill(index_B) : Int32Array.from(index_B);
  const storage = backend.scalarTypeOf(x_BTD);
  return runFusedOp({
    name: 'CoveySelectTokens',
    inputs: { x: x_BTD },
    forward: () => ({
      outputs: [backend.tensor(addon.selectTokens(backend.handleOf(x_BTD), index), [batch, width])],
      saved: [],
    }),
    backward: ([dy]) => ({
      x: backend.tensor(addon.selectTokensGradient(backend.handleOf(dy!), index, tokens, storage), x_BTD.shape),
    }),
  })[0] as Tensor2D;
}
