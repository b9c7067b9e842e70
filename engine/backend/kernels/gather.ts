import { CoveyError } from '../../../common/errors.ts';
import { util } from '../../tf.ts';
import { storageOf } from '../torch-backend.ts';
import { input, type Kernel, type KernelTable } from './kernel.ts';

const gatherV2: Kernel = (scope, inputs, attrs) => {
  const x = input(inputs, 'x');
  const indices = input(inputs, 'indices');
  if (attrs['batchDims']) throw new CoveyError('UNSUPPORTED', 'Cannot gather with batchDims on the torch engine');
  const axis = util.parseAxisParam(attrs['axis'], x.shape)[0]!;
  const flat = scope.call('reshape', scope.cast(scope.in(indices), 'int32'), [-1]);
  const shape = [...x.shape.slice(0, axis), ...indices.shape, ...x.shape.slice(axis + 1)];
  return scope.out(scope.call('reshape', scope.call('index_select', scope.in(x), axis, flat), shape), x.dtype, shape);
};

/** The gradient of gather. Rows are added in the order of the ids (index_add is serial over them). */
const unsortedSegmentSum: Kernel = (scope, inputs, attrs) => {
  const x = input(inputs, 'x');
  const segmentIds = input(inputs, 'segmentIds');
  if (segmentIds.shape.length !== 1)
    throw new CoveyError('UNSUPPORTED', 'Cannot sum segments by ids of rank other than 1');
  const shape = [attrs['numSegments'], ...x.shape.slice(1)];
  const ids = scope.cast(scope.in(segmentIds), 'int32');
  // Negative ids are dropped: they go to an extra row that is cut off.
  const dropped = scope.call('full_like', ids, attrs['numSegments']);
  const safe = scope.call('where.self', scope.call('lt.Scalar', ids, 0), dropped, ids);
  const zeros = scope.call('zeros', [attrs['numSegments'] + 1, ...x.shape.slice(1)], storageOf(x.dtype));
  const values = x.dtype === 'float32' ? scope.cast(scope.in(x), 'float32') : scope.in(x);
  const sums = scope.call('index_add', zeros, 0, safe, values);
  return scope.out(scope.call('slice.Tensor', sums, 0, 0, attrs['numSegments'], 1), x.dtype, shape);
};

const oneHot: Kernel = (scope, inputs, attrs) => {
  const indices = input(inputs, 'indices');
  const classes = scope.call('arange', attrs['depth'], storageOf('int32'));
  const column = scope.call('reshape', scope.cast(scope.in(indices), 'int32'), [...indices.shape, 1]);
  const hit = scope.call('eq.Tensor', column, classes);
  const dtype = attrs['dtype'] ?? 'int32';
  const on = scope.call('full', [], attrs['onValue'], storageOf(dtype));
  const off = scope.call('full', [], attrs['offValue'], storageOf(dtype));
  return scope.out(scope.call('where.self', hit, on, off), dtype, [...indices.shape, attrs['depth']]);
};

/** Addressed by index tensors. */
export const gatherKernels: KernelTable = {
  GatherV2: gatherV2,
  UnsortedSegmentSum: unsortedSegmentSum,
  OneHot: oneHot,
};
