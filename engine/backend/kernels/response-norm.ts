import type { Handle } from '../../native/load.ts';
import { type Attributes, input, type Kernel, type KernelScope, type KernelTable } from './kernel.ts';

// Local response normalisation (Krizhevsky et al. 2012, §3.3) over the channels of x_BHWC: y = x·norm^−β, norm = bias + α·Σ x² over a window.

/** Sums over the `depthRadius` channels on either side of each. */
function windowSums(scope: KernelScope, values: Handle, depthRadius: number): Handle {
  const padded = scope.call('constant_pad_nd', values, [depthRadius, depthRadius], 0);
  return scope.call('sum.dim_IntList', scope.call('unfold', padded, -1, 2 * depthRadius + 1, 1), [-1], false);
}

function norms(scope: KernelScope, x: Handle, attrs: Attributes): Handle {
  const sums = windowSums(scope, scope.call('mul.Tensor', x, x), attrs['depthRadius']);
  return scope.call('add.Scalar', scope.call('mul.Scalar', sums, attrs['alpha']), attrs['bias']);
}

const normalise: Kernel = (scope, inputs, attrs) => {
  const x = input(inputs, 'x');
  const values = scope.float(x);
  const factor = scope.call('pow.Tensor_Scalar', norms(scope, values, attrs), -attrs['beta']);
  return scope.out(scope.call('mul.Tensor', values, factor), 'float32', x.shape);
};

/** dx = dy·norm^−β − 2αβ·x·Σ dy·y/norm: the window is symmetric, so the sum runs over the same channels. */
const normaliseGradient: Kernel = (scope, inputs, attrs) => {
  const x = input(inputs, 'x');
  const [values, y, dy] = [x, input(inputs, 'y'), input(inputs, 'dy')].map((tensor) => scope.float(tensor)) as [
    Handle,
    Handle,
    Handle,
  ];
  const norm = norms(scope, values, attrs);
  const direct = scope.call('mul.Tensor', dy, scope.call('pow.Tensor_Scalar', norm, -attrs['beta']));
  const shares = scope.call('div.Tensor', scope.call('mul.Tensor', dy, y), norm);
  const crossed = scope.call('mul.Tensor', values, windowSums(scope, shares, attrs['depthRadius']));
  const dx = scope.call('sub.Tensor', direct, crossed, 2 * attrs['alpha'] * attrs['beta']);
  return scope.out(dx, 'float32', x.shape);
};

export const responseNormKernels: KernelTable = { LRN: normalise, LRNGrad: normaliseGradient };
