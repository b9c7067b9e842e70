import type { Handle } from '../../native/load.ts';
import { input, type Kernel, type KernelScope, type KernelTable } from './kernel.ts';

// Images are [batch, height, width, channels]: x_BHWC. Both axes are resized alike, one after the other.

interface Sampling {
  readonly alignCorners: boolean;
  readonly halfPixelCenters: boolean;
}

/** How far apart output samples lie in input pixels (tfjs: effectiveInputSize / effectiveOutputSize). */
function spacing(from: number, to: number, { alignCorners }: Sampling): number {
  return alignCorners && to > 1 ? (from - 1) / (to - 1) : from / to;
}

/** The input pixel that each output pixel takes. */
function nearestPixels(from: number, to: number, sampling: Sampling): Int32Array {
  const scale = spacing(from, to, sampling);
  return Int32Array.from({ length: to }, (_, at) => {
    const source = scale * (sampling.halfPixelCenters ? at + 0.5 : at);
    return Math.max(0, Math.min(from - 1, sampling.alignCorners ? Math.round(source) : Math.floor(source)));
  });
}

interface Lerp {
  /** Neighbours in the input, and the weight of the upper one. */
  readonly lower: Int32Array;
  readonly upper: Int32Array;
  readonly weight: Float32Array;
}

function lerpPixels(from: number, to: number, sampling: Sampling): Lerp {
  const scale = spacing(from, to, sampling);
  const source = Float64Array.from({ length: to }, (_, at) =>
    Math.max(0, sampling.halfPixelCenters ? scale * (at + 0.5) - 0.5 : scale * at),
  );
  const lower = Int32Array.from(source, (position) => Math.min(from - 1, Math.floor(position)));
  return {
    lower,
    upper: Int32Array.from(source, (position) => Math.min(from - 1, Math.ceil(position))),
    weight: Float32Array.from(source, (position, at) => position - lower[at]!),
  };
}

/** Both image axes, by number and with their lengths before and after. */
function axesOf(
  shape: readonly number[],
  size: readonly number[],
): readonly [axis: number, from: number, to: number][] {
  return [
    [1, shape[1]!, size[0]!],
    [2, shape[2]!, size[1]!],
  ];
}

/** The weights along one axis of x_BHWC. */
function weightsAlong(scope: KernelScope, weight: Float32Array, axis: number): Handle {
  return scope.upload(weight, axis === 1 ? [weight.length, 1, 1] : [weight.length, 1]);
}

const nearest: Kernel = (scope, inputs, attrs) => {
  const images = input(inputs, 'images');
  const size = attrs['size'] as [number, number];
  const result = axesOf(images.shape, size).reduce((x, [axis, from, to]) => {
    const pixels = scope.upload(nearestPixels(from, to, attrs as unknown as Sampling), [to]);
    return scope.call('index_select', x, axis, pixels);
  }, scope.in(images));
  return scope.out(result, images.dtype, [images.shape[0]!, ...size, images.shape[3]!]);
};

const bilinear: Kernel = (scope, inputs, attrs) => {
  const images = input(inputs, 'images');
  const size = attrs['size'] as [number, number];
  const result = axesOf(images.shape, size).reduce(
    (x, [axis, from, to]) => {
      const { lower, upper, weight } = lerpPixels(from, to, attrs as unknown as Sampling);
      const [low, high] = [lower, upper].map((pixels) =>
        scope.call('index_select', x, axis, scope.upload(pixels, [to])),
      );
      const difference = scope.call('sub.Tensor', high, low);
      return scope.call('add.Tensor', low, scope.call('mul.Tensor', difference, weightsAlong(scope, weight, axis)));
    },
    scope.cast(scope.in(images), 'float32'),
  );
  return scope.out(result, 'float32', [images.shape[0]!, ...size, images.shape[3]!]);
};

/** dy's rows are added to the pixels they came from. */
function scattered(scope: KernelScope, dy: Handle, axis: number, shape: readonly number[], pixels: Int32Array): Handle {
  return scope.call('index_add', scope.call('new_zeros', dy, shape), axis, scope.upload(pixels, [pixels.length]), dy);
}

/** The two axes again, the last one first; `shape` is what the gradient has become after that axis. */
function gradient(
  along: (
    scope: KernelScope,
    dy: Handle,
    axis: number,
    shape: number[],
    from: number,
    to: number,
    sampling: Sampling,
  ) => Handle,
): Kernel {
  return (scope, inputs, attrs) => {
    const images = input(inputs, 'images');
    const dy = input(inputs, 'dy');
    const [batch, height, width, channels] = images.shape as [number, number, number, number];
    const [, dyHeight, dyWidth] = dy.shape as [number, number, number, number];
    const sampling = attrs as unknown as Sampling;
    const dyFloat = scope.cast(scope.in(dy), 'float32');
    const columns = along(scope, dyFloat, 2, [batch, dyHeight, width, channels], width, dyWidth, sampling);
    const rows = along(scope, columns, 1, [batch, height, width, channels], height, dyHeight, sampling);
    return scope.out(rows, 'float32', images.shape);
  };
}

const nearestGradient = gradient((scope, dy, axis, shape, from, to, sampling) =>
  scattered(scope, dy, axis, shape, nearestPixels(from, to, sampling)),
);

const bilinearGradient = gradient((scope, dy, axis, shape, from, to, sampling) => {
  const { lower, upper, weight } = lerpPixels(from, to, sampling);
  const toUpper = scope.call('mul.Tensor', dy, weightsAlong(scope, weight, axis));
  const toLower = scope.call('sub.Tensor', dy, toUpper);
  const low = scattered(scope, toLower, axis, shape, lower);
  return scope.call('index_add', low, axis, scope.upload(upper, [to]), toUpper);
});

/** Images at another size. */
export const resizeKernels: KernelTable = {
  ResizeNearestNeighbor: nearest,
  ResizeNearestNeighborGrad: nearestGradient,
  ResizeBilinear: bilinear,
  ResizeBilinearGrad: bilinearGradient,
};
