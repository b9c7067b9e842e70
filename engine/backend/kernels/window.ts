import type { Handle } from '../../native/load.ts';
import type { KernelScope } from './kernel.ts';

/** What tfjs computes of a convolution or pooling, over two spatial axes or three. All lists have one entry per spatial axis. */
export interface Window {
  readonly size: readonly number[];
  readonly stride: readonly number[];
  readonly dilation: readonly number[];
  /** Padding before the first place. */
  readonly before: readonly number[];
  readonly inPlaces: readonly number[];
  readonly outPlaces: readonly number[];
  readonly channelsFirst: boolean;
}

interface ConvInfo2D {
  readonly [key: string]: unknown;
}

const AXES: Readonly<Record<2 | 3, readonly [axis: string, padding: string][]>> = {
  2: [
    ['Height', 'top'],
    ['Width', 'left'],
  ],
  3: [
    ['Depth', 'front'],
    ['Height', 'top'],
    ['Width', 'left'],
  ],
};

/** From tfjs's Conv2DInfo or Conv3DInfo. */
export function windowOf(info: object, rank: 2 | 3): Window {
  const fields = info as ConvInfo2D;
  const each = (prefix: string) => AXES[rank].map(([axis]) => fields[`${prefix}${axis}`] as number);
  const padding = fields['padInfo'] as Record<string, number>;
  return {
    size: each('filter'),
    stride: each('stride'),
    dilation: each('dilation'),
    before: AXES[rank].map(([, side]) => padding[side]!),
    inPlaces: each('in'),
    outPlaces: each('out'),
    channelsFirst: fields['dataFormat'] === 'channelsFirst',
  };
}

/** A tensor as libtorch wants it, [B,C,...]: of channels-last memory a view, which libtorch recognises as such. */
export function channelsFirst(scope: KernelScope, handle: Handle, window: Window): Handle {
  if (window.channelsFirst) return handle;
  const rank = window.size.length;
  return scope.call('permute', handle, [0, rank + 1, ...window.size.map((_, axis) => axis + 1)]);
}

/** The way back. */
export function asGiven(scope: KernelScope, handle: Handle, window: Window): Handle {
  if (window.channelsFirst) return handle;
  return scope.call('permute', handle, [0, ...window.size.map((_, axis) => axis + 2), 1]);
}

/** Padding in the two forms libtorch knows: the same on both sides as an argument, anything else written out. */
export interface Padding {
  readonly argument: readonly number[];
  /** For constant_pad_nd, last axis first; undefined where the argument does it. */
  readonly written?: readonly number[];
}

/** What lies behind the last place follows from the number of results, which tfjs may have rounded either way. */
export function paddingOf(
  window: Window,
  argumentMax: (size: number) => number = () => Number.POSITIVE_INFINITY,
): Padding {
  const axes = window.size.map((size, i) => {
    const span = (size - 1) * window.dilation[i]! + 1;
    const [before, places, stride, out] = [
      window.before[i]!,
      window.inPlaces[i]!,
      window.stride[i]!,
      window.outPlaces[i]!,
    ];
    const after = Math.max(0, (out - 1) * stride + span - places - before);
    const symmetric = Math.floor((places + 2 * before - span) / stride) + 1 === out && before <= argumentMax(size);
    return { before, after, symmetric };
  });
  if (axes.every(({ symmetric }) => symmetric)) return { argument: axes.map(({ before }) => before) };
  return {
    argument: axes.map(() => 0),
    written: [...axes].reverse().flatMap(({ before, after }) => [before, after]),
  };
}

export function padded(scope: KernelScope, x_BC: Handle, { written }: Padding, value: number): Handle {
  return written === undefined ? x_BC : scope.call('constant_pad_nd', x_BC, written, value);
}

/** Cuts a gradient of padded input back to the input. */
export function unpadded(scope: KernelScope, dx_BC: Handle, { written }: Padding, window: Window): Handle {
  if (written === undefined) return dx_BC;
  return window.inPlaces.reduce(
    (handle, places, i) => scope.call('slice.Tensor', handle, i + 2, window.before[i]!, window.before[i]! + places),
    dx_BC,
  );
}
