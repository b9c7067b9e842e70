import { CoveyError } from '../../../common/errors.ts';
import type { Handle } from '../../native/load.ts';
import type { KernelScope } from './kernel.ts';

/** tfjs's activations that follow a product or a convolution. `slope` belongs to prelu and broadcasts; `alpha` to leakyrelu. */
export function activated(
  scope: KernelScope,
  handle: Handle,
  options: { readonly activation: string | undefined; readonly alpha?: number; readonly slope?: Handle | undefined },
): Handle {
  const { activation, alpha, slope } = options;
  switch (activation) {
    case undefined:
    case 'linear':
      return handle;
    case 'relu':
    case 'elu':
    case 'sigmoid':
      return scope.call(activation, handle);
    case 'relu6':
      return scope.call('clamp', handle, 0, 6);
    case 'leakyrelu':
      return scope.call('leaky_relu', handle, alpha);
    case 'prelu': {
      const scaled = scope.call('mul.Tensor', handle, slope!);
      return scope.call('where.self', scope.call('ge.Scalar', handle, 0), handle, scaled);
    }
    default:
      throw new CoveyError('UNSUPPORTED', `Cannot apply activation ${activation} after a product or convolution`);
  }
}
