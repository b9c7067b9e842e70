import type { Handle } from '../../native/load.ts';
import { backend_util, type TensorInfo, util } from '../../tf.ts';
import { flatIndex, indexed } from './indices.ts';
import {
  type Attributes,
  input,
  type Kernel,
  type KernelInputs,
  type KernelScope,
  type KernelTable,
} from './kernel.ts';

interface Scatter {
  readonly indices: TensorInfo;
  readonly updates: TensorInfo;
  readonly shape: readonly number[];
  /** What lies under the updates; flattened to [places, slice]. */
  readonly base: (places: number, sliceSize: number, updates: Handle) => Handle;
  readonly aten: 'index_add' | 'index_copy';
}

/** Slices of `updates` at the places that `indices` names, added up or (the last one wins) overwritten. */
function scatter(scope: KernelScope, { indices, updates, shape, base, aten }: Scatter): TensorInfo {
  const { sliceRank, numUpdates, sliceSize, strides } = backend_util.calculateShapes(updates, indices, [...shape]);
  const places = util.sizeFromShape(shape.slice(0, sliceRank));
  const flat = flatIndex(scope, scope.in(indices), numUpdates, strides.slice(0, sliceRank));
  const whole = [numUpdates, sliceSize];
  const rows =
    updates.shape.length === 0
      ? scope.call('expand', scope.in(updates), whole)
      : scope.call('reshape', scope.in(updates), whole);
  const target = base(places, sliceSize, rows);
  const complaint = (value: number) => `Invalid indices: place ${value} does not index into ${shape}`;
  const index = aten === 'index_copy' ? scope.long(flat) : flat;
  const result = indexed(scope, flat, places, complaint, () => scope.call(aten, target, 0, index, rows));
  return scope.out(scope.call('reshape', result, shape), updates.dtype, shape);
}

const scatterNd: Kernel = (scope, inputs, attrs) =>
  scatter(scope, {
    indices: input(inputs, 'indices'),
    updates: input(inputs, 'updates'),
    shape: attrs['shape'],
    base: (places, sliceSize, updates) => scope.call('new_zeros', updates, [places, sliceSize]),
    aten: 'index_add',
  });

const tensorScatterUpdate: Kernel = (scope, inputs) => {
  const tensor = input(inputs, 'tensor');
  return scatter(scope, {
    indices: input(inputs, 'indices'),
    updates: input(inputs, 'updates'),
    shape: tensor.shape,
    base: (places, sliceSize) => scope.call('reshape', scope.in(tensor), [places, sliceSize]),
    aten: 'index_copy',
  });
};

const sparseToDense: Kernel = (scope, inputs, attrs) => {
  const values = input(inputs, 'sparseValues');
  return scatter(scope, {
    indices: input(inputs, 'sparseIndices'),
    updates: values,
    shape: attrs['outputShape'],
    base: (places, sliceSize) => {
      const value = scope.cast(scope.in(input(inputs, 'defaultValue')), values.dtype);
      // index_copy writes a copy, so the expanded scalar is safe beneath it.
      return scope.call('expand', scope.call('reshape', value, [1, 1]), [places, sliceSize]);
    },
    aten: 'index_copy',
  });
};

/** How often each value < size occurs in each row (or the weights of its occurrences): [rows, size]. */
function counted(scope: KernelScope, inputs: KernelInputs, attrs: Attributes, rows: number): Handle {
  const x = input(inputs, 'x');
  const weights = input(inputs, 'weights');
  const size = attrs['size'] as number;
  const columns = util.sizeFromShape(x.shape) / rows;
  const ids = scope.call('reshape', scope.cast(scope.in(x), 'int32'), [rows, columns]);
  // Values of `size` and more share an extra column that is cut off; negative ones are refused.
  const index = scope.call('clamp_max', ids, size);
  const weighted = !weights.shape.includes(0) && !attrs['binaryOutput'];
  const source = weighted
    ? scope.call('reshape', scope.in(weights), [rows, columns])
    : scope.call('new_full', scope.in(weights), [rows, columns], 1);
  const zeros = scope.call('new_zeros', source, [rows, size + 1]);
  const complaint = () => 'Input x must be non-negative!';
  const counts = indexed(scope, index, size + 1, complaint, () =>
    scope.call(attrs['binaryOutput'] ? 'scatter.src' : 'scatter_add', zeros, 1, scope.long(index), source),
  );
  return scope.call('slice.Tensor', counts, 1, 0, size, 1);
}

const bincount: Kernel = (scope, inputs, attrs) => {
  const { dtype } = input(inputs, 'weights');
  const counts = counted(scope, inputs, attrs, 1);
  return scope.out(scope.call('reshape', counts, [attrs['size']]), dtype, [attrs['size']]);
};

const denseBincount: Kernel = (scope, inputs, attrs) => {
  const { shape } = input(inputs, 'x');
  util.assert(shape.length <= 2, () => `denseBincount takes at most rank 2, got [${shape}]`);
  const { dtype } = input(inputs, 'weights');
  const counts = counted(scope, inputs, attrs, shape.length === 2 ? shape[0]! : 1);
  const outShape = [...shape.slice(0, -1), attrs['size'] as number];
  return scope.out(scope.call('reshape', counts, outShape), dtype, outShape);
};

/** Written to places that index tensors name. */
export const scatterKernels: KernelTable = {
  ScatterNd: scatterNd,
  TensorScatterUpdate: tensorScatterUpdate,
  SparseToDense: sparseToDense,
  Bincount: bincount,
  DenseBincount: denseBincount,
};
