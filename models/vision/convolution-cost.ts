import { product } from '../clip/block-cost.ts';
import type { BackboneCost } from './backbone.ts';

export interface ConvolutionShape {
  /** Of its output, square. */
  readonly side: number;
  readonly inputs: number;
  readonly outputs: number;
  /** Side of the kernel. */
  readonly size: number;
}

/** Of one picture. Each convolution's input, its result and what normalisation makes of it are kept; the first is the stem's, which needs no gradient of its input. */
export function convolutionsCost(convolutions: readonly ConvolutionShape[]): BackboneCost {
  const flops = convolutions.map(({ side, inputs, outputs, size }) => product(side ** 2, inputs * size ** 2, outputs));
  const forwardFlops = flops.reduce((sum, one) => sum + one, 0);
  const activationFloats = convolutions.reduce((sum, { side, outputs }) => sum + 4 * side ** 2 * outputs, 0);
  return { forwardFlops, backwardFlops: 2 * forwardFlops - flops[0]!, activationFloats };
}
