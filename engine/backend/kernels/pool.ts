import type { Handle } from '../../native/load.ts';
import { backend_util, type TensorInfo } from '../../tf.ts';
import { type Attributes, input, type Kernel, type KernelScope, type KernelTable } from './kernel.ts';
import { asGiven, channelsFirst, type Padding, padded, paddingOf, unpadded, type Window, windowOf } from './window.ts';

type Rank = 2 | 3;

interface Pooling {
  readonly rank: Rank;
  readonly window: Window;
  readonly outShape: readonly number[];
  readonly padding: Padding;
}

function poolingOf(x: TensorInfo, attrs: Attributes, rank: Rank): Pooling {
  const { filterSize, strides, pad, dimRoundingMode, dataFormat } = attrs;
  const info =
    rank === 2
      ? backend_util.computePool2DInfo(
          x.shape as [number, number, number, number],
          filterSize,
          strides,
          1,
          pad,
          dimRoundingMode,
        )
      : backend_util.computePool3DInfo(
          x.shape as [number, number, number, number, number],
          filterSize,
          strides,
          1,
          pad,
          dimRoundingMode,
          dataFormat,
        );
  const window = windowOf(info, rank);
  // libtorch refuses more padding than half a window.
  return { rank, window, outShape: info.outShape, padding: paddingOf(window, (size) => Math.floor(size / 2)) };
}

/** A result in the input's type: libtorch pools floats. */
function result(scope: KernelScope, y: Handle, x: TensorInfo, { window, outShape }: Pooling): TensorInfo {
  const given = asGiven(scope, y, window);
  return scope.out(x.dtype === 'float32' ? given : scope.cast(given, x.dtype), x.dtype, outShape);
}

/** What max pooling reads. tfjs's rule: NaN never wins. */
function candidates(scope: KernelScope, x: TensorInfo, { window, padding }: Pooling): Handle {
  const values = channelsFirst(scope, scope.float(x), window);
  const comparable = scope.call('where.ScalarOther', scope.call('eq.Tensor', values, values), values, -Infinity);
  return padded(scope, comparable, padding, -Infinity);
}

function maxima(scope: KernelScope, values: Handle, { rank, window, padding }: Pooling): Handle[] {
  const name = `max_pool${rank}d_with_indices`;
  return scope.callMany(name, values, window.size, window.stride, padding.argument, window.dilation, false);
}

/** tfjs's rule: windows of one place that leave the shape as it is leave the values as well, whatever the stride. */
function isIdentity({ window }: Pooling): boolean {
  return window.size.every((size, i) => size === 1 && window.inPlaces[i] === window.outPlaces[i]);
}

/** What needs no window: nothing at all where no window fits, and the input itself. */
function withoutWindows(scope: KernelScope, x: TensorInfo, pooling: Pooling): TensorInfo | undefined {
  if (pooling.outShape.includes(0)) {
    return scope.out(scope.call('new_empty', scope.in(x), pooling.outShape), x.dtype, pooling.outShape);
  }
  return isIdentity(pooling) ? scope.out(scope.alias(scope.in(x)), x.dtype, x.shape) : undefined;
}

function maxPool(rank: Rank): Kernel {
  return (scope, inputs, attrs) => {
    const x = input(inputs, 'x');
    const pooling = poolingOf(x, attrs, rank);
    return (
      withoutWindows(scope, x, pooling) ??
      result(scope, maxima(scope, candidates(scope, x, pooling), pooling)[0]!, x, pooling)
    );
  };
}

/** The winners are found again, as tfjs keeps none. */
function maxPoolGrad(rank: Rank): Kernel {
  return (scope, inputs, attrs) => {
    const [dy, x] = [input(inputs, 'dy'), input(inputs, 'input')];
    const pooling = poolingOf(x, attrs, rank);
    const { window, padding } = pooling;
    const values = candidates(scope, x, pooling);
    const [, winners] = maxima(scope, values, pooling);
    const dx = scope.call(
      `max_pool${rank}d_with_indices_backward`,
      channelsFirst(scope, scope.cast(scope.in(dy), 'float32'), window),
      scope.cast(values, 'float32'),
      window.size,
      window.stride,
      padding.argument,
      window.dilation,
      false,
      winners,
    );
    return scope.out(asGiven(scope, unpadded(scope, dx, padding, window), window), 'float32', x.shape);
  };
}

/** The arguments that follow the tensor. With written padding sums are needed, for the number of real places differs per window. */
function averageArguments({ window, padding }: Pooling): unknown[] {
  const sums = padding.written !== undefined;
  return [window.size, window.stride, padding.argument, false, sums, sums ? 1 : null];
}

/** How many real places each window has, [1,1,...]; 1 where there is none, so that the mean is 0. */
function realPlaces(scope: KernelScope, pooling: Pooling): Handle {
  const { rank, window, padding } = pooling;
  const ones = padded(scope, scope.call('ones', [1, 1, ...window.inPlaces]), padding, 0);
  return scope.call('clamp', scope.call(`avg_pool${rank}d`, ones, ...averageArguments(pooling)), 1);
}

function avgPool(rank: Rank): Kernel {
  return (scope, inputs, attrs) => {
    const x = input(inputs, 'x');
    const pooling = poolingOf(x, attrs, rank);
    const trivial = withoutWindows(scope, x, pooling);
    if (trivial) return trivial;
    const values = padded(scope, channelsFirst(scope, scope.float(x), pooling.window), pooling.padding, 0);
    const pooled = scope.call(`avg_pool${rank}d`, values, ...averageArguments(pooling));
    const mean = pooling.padding.written ? scope.call('div.Tensor', pooled, realPlaces(scope, pooling)) : pooled;
    return result(scope, mean, x, pooling);
  };
}

/** The exact gradient of the forward. (tfjs's own kernel divides by the whole window even where its forward does not count padding.) */
function avgPoolGrad(rank: Rank): Kernel {
  return (scope, inputs, attrs) => {
    const [dy, x] = [input(inputs, 'dy'), input(inputs, 'input')];
    const pooling = poolingOf(x, attrs, rank);
    const { window, padding } = pooling;
    const values = padded(scope, channelsFirst(scope, scope.float(x), window), padding, 0);
    const upstream = channelsFirst(scope, scope.in(dy), window);
    const scaled = padding.written ? scope.call('div.Tensor', upstream, realPlaces(scope, pooling)) : upstream;
    const same = scope.backend.isHalf(x) === scope.backend.isHalf(dy);
    const dx = scope.call(
      `avg_pool${rank}d_backward`,
      same ? scaled : scope.cast(scaled, 'float32'),
      same ? values : scope.cast(values, 'float32'),
      ...averageArguments(pooling),
    );
    return scope.out(asGiven(scope, unpadded(scope, dx, padding, window), window), 'float32', x.shape);
  };
}

/** Normalisation by given statistics, which broadcast against x. */
const fusedBatchNorm: Kernel = (scope, inputs, attrs) => {
  const x = input(inputs, 'x');
  const { scale, offset } = inputs;
  const shifted = scope.call('add.Scalar', scope.in(input(inputs, 'variance')), attrs['varianceEpsilon'] ?? 0.001);
  const reciprocal = scope.call('rsqrt', shifted);
  const gain = scale ? scope.call('mul.Tensor', reciprocal, scope.in(scale)) : reciprocal;
  const centred = scope.call('sub.Tensor', scope.in(x), scope.in(input(inputs, 'mean')));
  const y = offset ? scope.call('addcmul', scope.in(offset), centred, gain) : scope.call('mul.Tensor', centred, gain);
  return scope.out(y, 'float32', x.shape);
};

/** Pooling over windows, and batch normalisation as tfjs knows it. */
export const poolKernels: KernelTable = {
  MaxPool: maxPool(2),
  MaxPoolGrad: maxPoolGrad(2),
  AvgPool: avgPool(2),
  AvgPoolGrad: avgPoolGrad(2),
  MaxPool3D: maxPool(3),
  MaxPool3DGrad: maxPoolGrad(3),
  AvgPool3D: avgPool(3),
  AvgPool3DGrad: avgPoolGrad(3),
  FusedBatchNorm: fusedBatchNorm,
};
