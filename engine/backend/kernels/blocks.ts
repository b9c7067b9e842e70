import type { Handle } from '../../native/load.ts';
import { backend_util, slice_util, util } from '../../tf.ts';
import { input, type Kernel, type KernelScope, type KernelTable } from './kernel.ts';

/** [begin, begin + size) along the axes that have a size. */
function box(scope: KernelScope, handle: Handle, begin: readonly number[], size: readonly number[]): Handle {
  return size.reduce(
    (part, count, axis) => scope.call('slice.Tensor', part, axis, begin[axis]!, begin[axis]! + count, 1),
    handle,
  );
}

const spaceToBatch: Kernel = (scope, inputs, attrs) => {
  const x = input(inputs, 'x');
  const blockShape = attrs['blockShape'] as number[];
  const paddings = attrs['paddings'] as number[][];
  const all = [[0, 0], ...paddings, ...new Array(x.shape.length - 1 - blockShape.length).fill([0, 0])] as number[][];
  const padded = scope.call('constant_pad_nd', scope.in(x), [...all].reverse().flat(), 0);
  const paddedShape = x.shape.map((side, axis) => side + all[axis]![0]! + all[axis]![1]!);
  const blockSize = util.sizeFromShape(blockShape);
  const split = scope.call('reshape', padded, backend_util.getReshaped(paddedShape, blockShape, blockSize, false));
  const rank = paddedShape.length + blockShape.length;
  const moved = scope.call('permute', split, backend_util.getPermuted(rank, blockShape.length, false));
  const shape = backend_util.getReshapedPermuted(paddedShape, blockShape, blockSize, false);
  return scope.out(scope.call('reshape', moved, shape), x.dtype, shape);
};

const batchToSpace: Kernel = (scope, inputs, attrs) => {
  const x = input(inputs, 'x');
  const blockShape = attrs['blockShape'] as number[];
  const crops = attrs['crops'] as number[][];
  const blockSize = util.sizeFromShape(blockShape);
  const reshaped = backend_util.getReshaped(x.shape, blockShape, blockSize);
  const split = scope.call('reshape', scope.in(x), reshaped);
  const moved = scope.call('permute', split, backend_util.getPermuted(reshaped.length, blockShape.length));
  const whole = backend_util.getReshapedPermuted(x.shape, blockShape, blockSize);
  const begin = backend_util.getSliceBeginCoords(crops, blockShape.length);
  const size = backend_util.getSliceSize(whole, crops, blockShape.length);
  const cropped = box(scope, scope.call('reshape', moved, whole), begin, size);
  return scope.out(cropped, x.dtype, [...size, ...whole.slice(size.length)]);
};

const depthToSpace: Kernel = (scope, inputs, attrs) => {
  const x = input(inputs, 'x');
  util.assert(attrs['dataFormat'] === 'NHWC', () => `depthToSpace takes NHWC only, got ${attrs['dataFormat']}`);
  const [batch, height, width, depth] = x.shape as [number, number, number, number];
  const block = attrs['blockSize'] as number;
  const left = depth / (block * block);
  const split = scope.call('reshape', scope.in(x), [batch, height, width, block, block, left]);
  const moved = scope.call('permute', split, [0, 1, 3, 2, 4, 5]);
  const shape = [batch, height * block, width * block, left];
  return scope.out(scope.call('reshape', moved, shape), x.dtype, shape);
};

/** `reflect` leaves the edge out of its mirror image, `symmetric` repeats it. */
const mirrorPad: Kernel = (scope, inputs, attrs) => {
  const x = input(inputs, 'x');
  const paddings = attrs['paddings'] as [number, number][];
  const skipped = attrs['mode'] === 'reflect' ? 1 : 0;
  const result = paddings.reduce(
    (handle, [before, after], axis) => {
      if (before === 0 && after === 0) return handle;
      const side = x.shape[axis]!;
      const mirrored = (begin: number, end: number) =>
        scope.call('flip', scope.call('slice.Tensor', handle, axis, begin, end, 1), [axis]);
      const head = mirrored(skipped, skipped + before);
      const tail = mirrored(side - skipped - after, side - skipped);
      return scope.call('cat', [head, handle, tail], axis);
    },
    scope.alias(scope.in(x)),
  );
  const shape = x.shape.map((side, axis) => side + paddings[axis]![0] + paddings[axis]![1]);
  return scope.out(result, x.dtype, shape);
};

const flipLeftRight: Kernel = (scope, inputs) => {
  const image = input(inputs, 'image');
  return scope.out(scope.call('flip', scope.in(image), [2]), image.dtype, image.shape);
};

/** ATen knows positive strides only: an axis that runs backwards is turned round first. */
const stridedSlice: Kernel = (scope, inputs, attrs) => {
  const x = input(inputs, 'x');
  const info = slice_util.sliceInfo(
    x.shape,
    attrs['begin'],
    attrs['end'],
    attrs['strides'],
    attrs['beginMask'],
    attrs['endMask'],
    attrs['ellipsisMask'],
    attrs['newAxisMask'],
    attrs['shrinkAxisMask'],
  );
  if (info.isIdentity) return scope.out(scope.call('reshape', scope.in(x), info.finalShape), x.dtype, info.finalShape);
  const result = info.strides.reduce(
    (handle, stride, axis) => {
      const [begin, end] = [info.begin[axis]!, info.end[axis]!];
      if (stride > 0) return scope.call('slice.Tensor', handle, axis, begin, Math.max(begin, end), stride);
      const last = x.shape[axis]! - 1;
      const turned = scope.call('flip', handle, [axis]);
      return scope.call('slice.Tensor', turned, axis, last - begin, Math.max(last - begin, last - end), -stride);
    },
    scope.alias(scope.in(x)),
  );
  return scope.out(scope.call('reshape', result, info.finalShape), x.dtype, info.finalShape);
};

const diagonal: Kernel = (scope, inputs) => {
  const x = input(inputs, 'x');
  const shape = [...x.shape, ...x.shape];
  const square = scope.call('diag_embed', scope.call('reshape', scope.in(x), [-1]), 0, -2, -1);
  return scope.out(scope.call('reshape', square, shape), x.dtype, shape);
};

/** Rearranged by blocks, mirror images and strides. */
export const blockKernels: KernelTable = {
  SpaceToBatchND: spaceToBatch,
  BatchToSpaceND: batchToSpace,
  DepthToSpace: depthToSpace,
  MirrorPad: mirrorPad,
  FlipLeftRight: flipLeftRight,
  StridedSlice: stridedSlice,
  Diag: diagonal,
};
