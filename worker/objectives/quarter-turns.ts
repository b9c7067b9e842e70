import { CoveyError } from '../../common/errors.ts';
import { type Tensor, type Tensor4D, tf } from '../../engine/index.ts';
import { QUARTER_TURNS } from './objective-inputs.ts';

/** Rotations by 90°: pixels change places and nothing else. */

/**
 * Square pictures turned `turns` times by 90° against the clock, as numpy's `rot90`.
 * @throws CoveyError INVALID_ARGUMENT where they are not square: a turn would change their shape, and give itself away
 */
export function quarterTurned(x_BHWC: Tensor, turns: number): Tensor4D {
  const [, height, width] = x_BHWC.shape;
  if (height !== width) {
    throw new CoveyError('INVALID_ARGUMENT', `Cannot turn pictures: they must be square: got ${height}×${width}`, {
      fields: { shape: x_BHWC.shape },
    });
  }
  const x = x_BHWC as Tensor4D;
  switch (turns % QUARTER_TURNS) {
    case 0:
      return x;
    case 1:
      return tf.reverse(tf.transpose(x, [0, 2, 1, 3]), 1);
    case 2:
      return tf.reverse(x, [1, 2]);
    default:
      return tf.reverse(tf.transpose(x, [0, 2, 1, 3]), 2);
  }
}

/** Every picture in its four rotations, [4 × B, …]: all upright ones, then all turned once, … */
export function allQuarterTurns(x_BHWC: Tensor): Tensor4D {
  const turned = Array.from({ length: QUARTER_TURNS }, (_, turns) => quarterTurned(x_BHWC, turns));
  return tf.concat(turned, 0);
}

/** Picture i turned `turns[i]` times. */
export function turnedEach(x_BHWC: Tensor, turns: Int32Array): Tensor4D {
  const places = turns.map((count, row) => count * turns.length + row);
  return tf.gather(allQuarterTurns(x_BHWC), tf.tensor1d(places, 'int32')) as Tensor4D;
}
