import { CoveyError } from '../../../common/errors.ts';
import { backend_util, type Tensor, util } from '../../tf.ts';
import { storageOf } from '../torch-backend.ts';
import { flatIndex, indexed } from './indices.ts';
import { input, type Kernel, type KernelTable } from './kernel.ts';

const gatherV2: Kernel = (scope, inputs, attrs) => {
  const x = input(inputs, 'x');
  const indices = input(inputs, 'indices');
  const axis = util.parseAxisParam(attrs['axis'], x.shape)[0]!;
  const { batchSize, outerSize, dimSize, sliceSize, outputShape } = backend_util.segment_util.collectGatherOpShapeInfo(
    x as Tensor,
    indices as Tensor,
    axis,
    attrs['batchDims'] ?? 0,
  );
  const index = scope.cast(scope.in(indices), 'int32');
  const complaint = (value: number) => `GatherV2: the index value ${value} is not in [0, ${dimSize - 1}]`;
  const gathered = indexed(scope, index, dimSize, complaint, () => {
    if (batchSize === 1 && !attrs['batchDims']) {
      return scope.call('index_select', scope.in(x), axis, scope.call('reshape', index, [-1]));
    }
    const perBatch = util.sizeFromShape(indices.shape) / batchSize;
    const blocks = scope.call('reshape', scope.in(x), [batchSize, outerSize, dimSize, sliceSize]);
    const rows = scope.call('reshape', scope.long(index), [batchSize, 1, perBatch, 1]);
    return scope.call('gather', blocks, 2, scope.call('expand', rows, [batchSize, outerSize, perBatch, sliceSize]));
  });
  return scope.out(scope.call('reshape', gathered, outputShape), x.dtype, outputShape);
};

const gatherNd: Kernel = (scope, inputs) => {
  const params = input(inputs, 'params');
  const indices = input(inputs, 'indices');
  const [shape, count, sliceSize, strides] = backend_util.prepareAndValidate(params, indices);
  const sliceRank = indices.shape.at(-1)!;
  const places = util.sizeFromShape(params.shape) / sliceSize;
  const flat = flatIndex(scope, scope.in(indices), count, strides.slice(0, sliceRank));
  const rows = scope.call('reshape', scope.in(params), [places, sliceSize]);
  const complaint = (value: number) => `Invalid indices: place ${value} is not in params of shape ${params.shape}`;
  const gathered = indexed(scope, flat, places, complaint, () => scope.call('index_select', rows, 0, flat));
  return scope.out(scope.call('reshape', gathered, shape), params.dtype, shape);
};

/** The gradient of gather. Rows are added in the order of the ids (index_add is serial over them). */
const unsortedSegmentSum: Kernel = (scope, inputs, attrs) => {
  const x = input(inputs, 'x');
  const segmentIds = input(inputs, 'segmentIds');
  if (segmentIds.shape.length !== 1)
    throw new CoveyError('UNSUPPORTED', 'Cannot sum segments by ids of rank other than 1');
  const segments = attrs['numSegments'] as number;
  // Ids out of range are dropped: below −1 and above the last all become an extra row that is cut off.
  const bounded = scope.call('clamp', scope.cast(scope.in(segmentIds), 'int32'), -1, segments);
  const rows = scope.call('remainder.Scalar', bounded, segments + 1);
  const values = x.dtype === 'float32' ? scope.cast(scope.in(x), 'float32') : scope.in(x);
  const zeros = scope.call('new_zeros', values, [segments + 1, ...x.shape.slice(1)]);
  const sums = scope.call('index_add', zeros, 0, rows, values);
  return scope.out(scope.call('slice.Tensor', sums, 0, 0, segments, 1), x.dtype, [segments, ...x.shape.slice(1)]);
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
  GatherNd: gatherNd,
  UnsortedSegmentSum: unsortedSegmentSum,
  OneHot: oneHot,
};
