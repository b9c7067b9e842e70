import { CoveyError } from '../../../common/errors.ts';
import { backend_util, slice_util, util } from '../../tf.ts';
import { storageOf } from '../torch-backend.ts';
import { input, type Kernel, type KernelTable } from './kernel.ts';

// Results may be views of their inputs: no kernel writes in place.

const identity: Kernel = (scope, inputs) => {
  const x = input(inputs, 'x');
  const record = scope.backend.recordOf(x);
  record.references++;
  return { dataId: x.dataId, shape: x.shape, dtype: x.dtype };
};

const reshape: Kernel = (scope, inputs, attrs) => {
  const x = input(inputs, 'x');
  const size = util.sizeFromShape(x.shape);
  const shape = util.inferFromImplicitShape(attrs['shape'], size);
  if (util.sizeFromShape(shape) !== size) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot reshape: [${x.shape}] has ${size} elements, [${shape}] another number`,
    );
  }
  return scope.out(scope.call('reshape', scope.in(x), shape), x.dtype, shape);
};

const expandDims: Kernel = (scope, inputs, attrs) => {
  const x = input(inputs, 'input');
  const rank = x.shape.length;
  util.assert(
    attrs['dim'] >= -(rank + 1) && attrs['dim'] <= rank,
    () => `Axis must be in the interval [${-(rank + 1)}, ${rank}]`,
  );
  const axis = attrs['dim'] < 0 ? attrs['dim'] + rank + 1 : attrs['dim'];
  const shape = [...x.shape.slice(0, axis), 1, ...x.shape.slice(axis)];
  return scope.out(scope.call('reshape', scope.in(x), shape), x.dtype, shape);
};

const transpose: Kernel = (scope, inputs, attrs) => {
  const x = input(inputs, 'x');
  return scope.out(scope.call('permute', scope.in(x), attrs['perm']), x.dtype);
};

const slice: Kernel = (scope, inputs, attrs) => {
  const x = input(inputs, 'x');
  const [begin, size] = slice_util.parseSliceParams(x as never, attrs['begin'], attrs['size']) as [number[], number[]];
  slice_util.assertParamsValid(x as never, begin, size);
  const result = size.reduce(
    (handle, count, axis) => {
      if (count === x.shape[axis]) return handle;
      return scope.call('slice.Tensor', handle, axis, begin[axis]!, begin[axis]! + count, 1);
    },
    scope.alias(scope.in(x)),
  );
  return scope.out(result, x.dtype, size);
};

const concat: Kernel = (scope, inputs, attrs) => {
  const parts = Object.values(inputs);
  const shapes = parts.map((part) => part.shape);
  const axis = util.parseAxisParam(attrs['axis'], shapes[0]!)[0]!;
  backend_util.assertParamsConsistent(shapes, axis);
  const joined = scope.call(
    'cat',
    parts.map((part) => scope.in(part)),
    axis,
  );
  return scope.out(joined, parts[0]!.dtype, backend_util.computeOutShape(shapes, axis));
};

const pack: Kernel = (scope, inputs, attrs) => {
  const parts = Object.values(inputs);
  for (const { dtype } of parts) {
    util.assert(dtype === parts[0]!.dtype, () => 'All tensors passed to stack must have matching dtypes');
  }
  return scope.out(
    scope.call(
      'stack',
      parts.map((part) => scope.in(part)),
      attrs['axis'],
    ),
    parts[0]!.dtype,
  );
};

const unpack: Kernel = (scope, inputs, attrs) => {
  const value = input(inputs, 'value');
  const axis = attrs['axis'] < 0 ? attrs['axis'] + value.shape.length : attrs['axis'];
  return scope.callMany('unbind.int', scope.in(value), axis).map((handle) => scope.out(handle, value.dtype));
};

const split: Kernel = (scope, inputs, attrs) => {
  const x = input(inputs, 'x');
  const axis = util.parseAxisParam(attrs['axis'], x.shape)[0]!;
  const sizes = backend_util.prepareSplitSize(x as never, attrs['numOrSizeSplits'], axis);
  return scope.callMany('split_with_sizes', scope.in(x), sizes, axis).map((handle) => scope.out(handle, x.dtype));
};

const tile: Kernel = (scope, inputs, attrs) => {
  const x = input(inputs, 'x');
  return scope.out(scope.call('repeat', scope.in(x), attrs['reps']), x.dtype);
};

const broadcastTo: Kernel = (scope, inputs, attrs) => {
  const x = input(inputs, 'x');
  return scope.out(scope.call('expand', scope.in(x), attrs['shape']), x.dtype, attrs['shape']);
};

const reverse: Kernel = (scope, inputs, attrs) => {
  const x = input(inputs, 'x');
  return scope.out(scope.call('flip', scope.in(x), util.parseAxisParam(attrs['dims'], x.shape)), x.dtype, x.shape);
};

const pad: Kernel = (scope, inputs, attrs) => {
  const x = input(inputs, 'x');
  const paddings = attrs['paddings'] as [number, number][];
  // ATen counts paddings from the last axis.
  const result = scope.call('constant_pad_nd', scope.in(x), [...paddings].reverse().flat(), attrs['constantValue']);
  return scope.out(
    result,
    x.dtype,
    x.shape.map((side, axis) => side + paddings[axis]![0] + paddings[axis]![1]),
  );
};

const cast: Kernel = (scope, inputs, attrs) => {
  const x = input(inputs, 'x');
  if (x.dtype === attrs['dtype']) return identity(scope, inputs, attrs);
  // Of a complex number only the real part is kept: ATen does the same, but warns.
  const source = x.dtype === 'complex64' ? scope.call('real', scope.in(x)) : scope.in(x);
  return scope.out(scope.cast(source, attrs['dtype']), attrs['dtype'], x.shape);
};

const fill: Kernel = (scope, _inputs, attrs) => {
  const dtype = attrs['dtype'] ?? util.inferDtype(attrs['value']);
  if (dtype === 'string')
    return scope.strings(new Array(util.sizeFromShape(attrs['shape'])).fill(attrs['value']), attrs['shape']);
  return scope.out(scope.call('full', attrs['shape'], attrs['value'], storageOf(dtype)), dtype, attrs['shape']);
};

function filledLike(aten: string): Kernel {
  return (scope, inputs) => {
    const x = input(inputs, 'x');
    return scope.out(scope.call(aten, scope.in(x)), x.dtype, x.shape);
  };
}

/** Where elements lie, not what they are. */
export const shapeKernels: KernelTable = {
  Identity: identity,
  Reshape: reshape,
  ExpandDims: expandDims,
  Transpose: transpose,
  Slice: slice,
  Concat: concat,
  Pack: pack,
  Unpack: unpack,
  SplitV: split,
  Tile: tile,
  BroadcastTo: broadcastTo,
  Reverse: reverse,
  PadV2: pad,
  Cast: cast,
  Fill: fill,
  ZerosLike: filledLike('zeros_like'),
  OnesLike: filledLike('ones_like'),
};
