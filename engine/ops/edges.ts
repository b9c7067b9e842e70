import { pad, type Tensor4D } from '../tf.ts';

/** x with `padding` places of `value` beyond each edge: TensorFlow's windows know only 'valid' and 'same', so padding is a pass of its own. */
export function withEdges(x_BHWC: Tensor4D, padding: number, value: number): Tensor4D {
  if (padding === 0) return x_BHWC;
  const sides: [number, number] = [padding, padding];
  return pad(x_BHWC, [[0, 0], sides, sides, [0, 0]], value);
}
