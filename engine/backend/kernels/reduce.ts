import type { Handle } from '../../native/load.ts';
import { backend_util, type TensorInfo, util } from '../../tf.ts';
import { input, type Kernel, type KernelScope, type KernelTable } from './kernel.ts';

function axesOf(axis: number | number[] | undefined, x: TensorInfo): number[] {
  return util.parseAxisParam(axis as number[], x.shape);
}

function reducedShape(x: TensorInfo, axes: number[], keepDims: boolean | undefined): number[] {
  const [shape] = backend_util.computeOutAndReduceShapes(x.shape, axes);
  return keepDims ? backend_util.expandShapeToKeepDim(shape, axes) : shape;
}

/** No axes to reduce over: the input itself. Scalars have none either, but ATen reduces them as they are. */
function isNoop(x: TensorInfo, axes: readonly number[]): boolean {
  return axes.length === 0 && x.shape.length > 0;
}

const sum: Kernel = (scope, inputs, attrs) => {
  const x = input(inputs, 'x');
  const axes = axesOf(attrs['axis'], x);
  const dtype = x.dtype === 'bool' ? 'int32' : x.dtype;
  const source = dtype === x.dtype ? scope.in(x) : scope.cast(scope.in(x), dtype);
  if (isNoop(x, axes)) return scope.out(scope.alias(source), dtype, x.shape);
  const total = scope.call('sum.dim_IntList', source, axes, attrs['keepDims'] === true);
  return scope.out(
    x.dtype === 'float32' ? total : scope.cast(total, dtype),
    dtype,
    reducedShape(x, axes, attrs['keepDims']),
  );
};

const mean: Kernel = (scope, inputs, attrs) => {
  const x = input(inputs, 'x');
  const axes = axesOf(attrs['axis'], x);
  const result = scope.call('mean.dim', scope.float(x), axes, attrs['keepDims'] === true);
  return scope.out(result, 'float32', reducedShape(x, axes, attrs['keepDims']));
};

function extremum(aten: string): Kernel {
  return (scope, inputs, attrs) => {
    const x = input(inputs, 'x');
    const axes = axesOf(attrs['reductionIndices'] ?? attrs['axis'], x);
    if (isNoop(x, axes)) return scope.out(scope.alias(scope.in(x)), x.dtype, x.shape);
    const result = scope.call(aten, scope.in(x), axes, attrs['keepDims'] === true);
    return scope.out(result, x.dtype, reducedShape(x, axes, attrs['keepDims']));
  };
}

/** ATen reduces these over one axis at a time. */
function stepwise(aten: string, dtypeOf: (x: TensorInfo) => TensorInfo['dtype']): Kernel {
  return (scope, inputs, attrs) => {
    const x = input(inputs, 'x');
    const axes = axesOf(attrs['axis'], x);
    const descending = [...axes].sort((a, b) => b - a);
    const result = descending.reduce((handle, axis) => scope.call(aten, handle, axis), scope.alias(scope.in(x)));
    const dtype = dtypeOf(x);
    const shaped = scope.call('reshape', result, reducedShape(x, axes, attrs['keepDims']));
    return scope.out(scope.cast(shaped, dtype), dtype, reducedShape(x, axes, attrs['keepDims']));
  };
}

/** tfjs passes over NaN, ATen takes it for the extremum: it becomes the value that loses. */
function position(aten: 'argmax' | 'argmin'): Kernel {
  const loser = aten === 'argmax' ? -Infinity : Infinity;
  const comparable = (scope: KernelScope, x: TensorInfo): Handle => {
    if (x.dtype === 'bool') return scope.cast(scope.in(x), 'int32');
    if (x.dtype !== 'float32') return scope.in(x);
    return scope.call('nan_to_num', scope.in(x), loser, Infinity, -Infinity);
  };
  return (scope, inputs, attrs) => {
    const x = input(inputs, 'x');
    const axes = axesOf(attrs['axis'], x);
    const index = scope.call(aten, comparable(scope, x), x.shape.length > 0 ? axes[0] : null, false);
    return scope.out(scope.cast(index, 'int32'), 'int32', reducedShape(x, axes, false));
  };
}

const softmax: Kernel = (scope, inputs, attrs) => {
  const logits = input(inputs, 'logits');
  return scope.out(scope.call('_softmax', scope.float(logits), attrs['dim'], false), 'float32', logits.shape);
};

const logSoftmax: Kernel = (scope, inputs, attrs) => {
  const logits = input(inputs, 'logits');
  return scope.out(scope.call('_log_softmax', scope.float(logits), attrs['axis'], false), 'float32', logits.shape);
};

/** Many elements to one, and what normalises over an axis. */
export const reduceKernels: KernelTable = {
  Sum: sum,
  Mean: mean,
  Max: extremum('amax'),
  Min: extremum('amin'),
  All: stepwise('all.dim', () => 'bool'),
  Any: stepwise('any.dim', () => 'bool'),
  Prod: stepwise('prod.dim_int', (x) => (x.dtype === 'bool' ? 'int32' : x.dtype)),
  ArgMax: position('argmax'),
  ArgMin: position('argmin'),
  Softmax: softmax,
  LogSoftmax: logSoftmax,
};
