import type { Handle } from '../../native/load.ts';
import { backend_util, type TensorInfo } from '../../tf.ts';
import { activated } from './activated.ts';
import { type Attributes, input, type Kernel, type KernelScope, type KernelTable } from './kernel.ts';
import { asGiven, channelsFirst, type Padding, padded, paddingOf, unpadded, type Window, windowOf } from './window.ts';

/** One convolution: its window, and the filter's layout. */
interface Convolution {
  readonly window: Window;
  readonly groups: number;
  readonly filterShape: readonly number[];
  readonly inShape: readonly number[];
  readonly outShape: readonly number[];
  readonly depthwise: boolean;
}

function convolution2d(
  inShape: readonly number[],
  filterShape: readonly number[],
  attrs: Attributes,
  depthwise: boolean,
): Convolution {
  const info = backend_util.computeConv2DInfo(
    inShape as [number, number, number, number],
    filterShape as [number, number, number, number],
    attrs['strides'],
    attrs['dilations'] ?? 1,
    attrs['pad'],
    attrs['dimRoundingMode'],
    depthwise,
    backend_util.convertConv2DDataFormat(attrs['dataFormat'] ?? 'NHWC'),
  );
  const groups = depthwise ? filterShape[2]! : info.inChannels / filterShape[2]!;
  return { window: windowOf(info, 2), groups, filterShape, inShape, outShape: info.outShape, depthwise };
}

function convolution3d(inShape: readonly number[], filterShape: readonly number[], attrs: Attributes): Convolution {
  const info = backend_util.computeConv3DInfo(
    inShape as [number, number, number, number, number],
    filterShape as [number, number, number, number, number],
    attrs['strides'],
    attrs['dilations'] ?? 1,
    attrs['pad'],
  );
  const groups = info.inChannels / filterShape[3]!;
  return { window: windowOf(info, 3), groups, filterShape, inShape, outShape: info.outShape, depthwise: false };
}

/** tfjs's [...places, in, out] as libtorch's [out, in, ...places]; a depthwise [.., in, multiplier] as [in·multiplier, 1, ..]. */
function libtorchFilter(scope: KernelScope, filter: Handle, { filterShape, depthwise, window }: Convolution): Handle {
  const rank = window.size.length;
  const places = window.size.map((_, axis) => axis);
  if (!depthwise) return scope.call('permute', filter, [rank + 1, rank, ...places]);
  const turned = scope.call('permute', filter, [rank, rank + 1, ...places]);
  return scope.call('reshape', turned, [filterShape[rank]! * filterShape[rank + 1]!, 1, ...window.size]);
}

function tfjsFilter(scope: KernelScope, gradient: Handle, { filterShape, depthwise, window }: Convolution): Handle {
  const rank = window.size.length;
  const split = depthwise
    ? scope.call('reshape', gradient, [filterShape[rank]!, filterShape[rank + 1]!, ...window.size])
    : gradient;
  const places = window.size.map((_, axis) => axis + 2);
  return scope.call('permute', split, depthwise ? [...places, 0, 1] : [...places, 1, 0]);
}

/** Both operands as floats of one storage: bf16 meets fp32 as fp32, as in products. */
function operands(scope: KernelScope, a: TensorInfo, b: TensorInfo): [Handle, Handle] {
  const pair: [Handle, Handle] = [scope.float(a), scope.float(b)];
  if (scope.backend.isHalf(a) === scope.backend.isHalf(b)) return pair;
  return [scope.cast(pair[0], 'float32'), scope.cast(pair[1], 'float32')];
}

/** libtorch's arguments from the stride on: of a convolution that is not transposed. */
function placement({ window, groups }: Convolution, padding: Padding): unknown[] {
  return [window.stride, padding.argument, window.dilation, false, window.size.map(() => 0), groups];
}

function forward(scope: KernelScope, x: TensorInfo, filter: TensorInfo, convolution: Convolution): Handle {
  const { window } = convolution;
  const padding = paddingOf(window);
  const [values, weights] = operands(scope, x, filter);
  const y = scope.call(
    'convolution',
    padded(scope, channelsFirst(scope, values, window), padding, 0),
    libtorchFilter(scope, weights, convolution),
    null,
    ...placement(convolution, padding),
  );
  return asGiven(scope, y, window);
}

/** The gradient of x (`which` 0, `other` the filter) or of the filter (`which` 1, `other` x). */
function backward(
  scope: KernelScope,
  which: 0 | 1,
  dy: TensorInfo,
  other: TensorInfo,
  convolution: Convolution,
): TensorInfo {
  const { window, inShape, filterShape } = convolution;
  const padding = paddingOf(window);
  const [upstream, operand] = operands(scope, dy, other);
  // Of the operand whose gradient is asked for, only shape and layout matter.
  const x = which === 0 ? scope.call('new_empty', upstream, inShape) : operand;
  const filter =
    which === 0
      ? libtorchFilter(scope, operand, convolution)
      : scope.call('contiguous', libtorchFilter(scope, scope.call('new_empty', upstream, filterShape), convolution));
  const results = scope.callMany(
    'convolution_backward',
    // A transposed convolution may hand in more places than the window has: tfjs reads the first ones.
    cut(scope, channelsFirst(scope, upstream, window), window.outPlaces),
    padded(scope, channelsFirst(scope, x, window), padding, 0),
    filter,
    null,
    ...placement(convolution, padding),
    [which === 0, which === 1, false],
  );
  const gradient = results[which]!;
  if (which === 1) return scope.out(tfjsFilter(scope, gradient, convolution), 'float32', filterShape);
  return scope.out(asGiven(scope, unpadded(scope, gradient, padding, window), window), 'float32', inShape);
}

function cut(scope: KernelScope, x_BC: Handle, places: readonly number[]): Handle {
  return places.reduce((handle, count, i) => scope.call('slice.Tensor', handle, i + 2, 0, count), x_BC);
}

function plain(depthwise: boolean): Kernel {
  return (scope, inputs, attrs) => {
    const [x, filter] = [input(inputs, 'x'), input(inputs, 'filter')];
    const convolution = convolution2d(x.shape, filter.shape, attrs, depthwise);
    return scope.out(forward(scope, x, filter, convolution), 'float32', convolution.outShape);
  };
}

/** With bias and activation after it. */
function fused(depthwise: boolean): Kernel {
  return (scope, inputs, attrs) => {
    const [x, filter] = [input(inputs, 'x'), input(inputs, 'filter')];
    const convolution = convolution2d(x.shape, filter.shape, attrs, depthwise);
    // A vector belongs to the channels, wherever they are.
    const perChannel = (tensor: TensorInfo): Handle =>
      convolution.window.channelsFirst && tensor.shape.length === 1 && tensor.shape[0] !== 1
        ? scope.call('reshape', scope.in(tensor), [tensor.shape[0], 1, 1])
        : scope.in(tensor);
    const y = forward(scope, x, filter, convolution);
    const { bias, preluActivationWeights } = inputs;
    const sum = bias ? scope.call('add.Tensor', y, perChannel(bias)) : y;
    const result = activated(scope, sum, {
      activation: attrs['activation'] ?? undefined,
      alpha: attrs['leakyreluAlpha'],
      slope: preluActivationWeights && perChannel(preluActivationWeights),
    });
    return scope.out(result, 'float32', convolution.outShape);
  };
}

function inputGradient(depthwise: boolean): Kernel {
  return (scope, inputs, attrs) => {
    const [dy, filter] = [input(inputs, 'dy'), input(inputs, 'filter')];
    return backward(scope, 0, dy, filter, convolution2d(attrs['inputShape'], filter.shape, attrs, depthwise));
  };
}

function filterGradient(depthwise: boolean): Kernel {
  return (scope, inputs, attrs) => {
    const [x, dy] = [input(inputs, 'x'), input(inputs, 'dy')];
    return backward(scope, 1, dy, x, convolution2d(x.shape, attrs['filterShape'], attrs, depthwise));
  };
}

const conv3d: Kernel = (scope, inputs, attrs) => {
  const [x, filter] = [input(inputs, 'x'), input(inputs, 'filter')];
  const convolution = convolution3d(x.shape, filter.shape, attrs);
  return scope.out(forward(scope, x, filter, convolution), 'float32', convolution.outShape);
};

const conv3dInputGradient: Kernel = (scope, inputs, attrs) => {
  const [dy, filter] = [input(inputs, 'dy'), input(inputs, 'filter')];
  return backward(scope, 0, dy, filter, convolution3d(attrs['inputShape'], filter.shape, attrs));
};

const conv3dFilterGradient: Kernel = (scope, inputs, attrs) => {
  const [x, dy] = [input(inputs, 'x'), input(inputs, 'dy')];
  return backward(scope, 1, dy, x, convolution3d(x.shape, attrs['filterShape'], attrs));
};

/** Convolutions over channels-last (or, where asked for, channels-first) activations. */
export const convKernels: KernelTable = {
  Conv2D: plain(false),
  Conv2DBackpropInput: inputGradient(false),
  Conv2DBackpropFilter: filterGradient(false),
  DepthwiseConv2dNative: plain(true),
  DepthwiseConv2dNativeBackpropInput: inputGradient(true),
  DepthwiseConv2dNativeBackpropFilter: filterGradient(true),
  FusedConv2D: fused(false),
  FusedDepthwiseConv2D: fused(true),
  Conv3D: conv3d,
  Conv3DBackpropInputV2: conv3dInputGradient,
  Conv3DBackpropFilterV2: conv3dFilterGradient,
};
