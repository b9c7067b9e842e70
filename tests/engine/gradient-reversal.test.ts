import { beforeAll, describe, expect, it } from 'vitest';
import { gradientReversal, loadEngine, recordForward, tf, toCompute, toFloat32 } from '../../engine/index.ts';
import { engineNames, hasTorch } from '../support/engines.ts';
import { randomInputs } from '../support/op-check.ts';

const LAMBDA = 0.7;
const STEP = 2e-3;
const { x: input } = randomInputs({ x: [4, 6] });

/** Σ cos(i)·tanh(2·x_i): what follows the op. */
const follow = (x: tf.Tensor) =>
  tf.sum(tf.mul(tf.tanh(tf.mul(x, 2)), tf.cos(tf.reshape(tf.range(0, x.size), x.shape))));

/** dx of follow(op(x)). */
function slope(op: (x: tf.Tensor) => tf.Tensor): Float32Array {
  const x = tf.tidy(() => tf.variable(tf.tensor(input!.values.slice(), input!.shape)));
  const recording = recordForward(() => [follow(op(x))]);
  const one = tf.scalar(1);
  let slopes = new Float32Array();
  recording.backward([one], [x], (_, gradient) => {
    slopes = new Float32Array(gradient.dataSync<'float32'>());
  });
  tf.dispose([one, x]);
  return slopes;
}

/** Central difference of what forward computes, at one place. */
function difference(op: (x: tf.Tensor) => tf.Tensor, at: number): number {
  const [above, below] = [STEP, -STEP].map((by) => {
    const values = input!.values.slice();
    values[at]! += by;
    return tf.tidy(() => follow(op(tf.tensor(values, input!.shape))).dataSync()[0]!) as unknown as number;
  });
  return (above! - below!) / (2 * STEP);
}

describe.each(engineNames)('gradient reversal on %s', (engine) => {
  beforeAll(async () => void (await loadEngine({ engine, threads: 1 })));

  it('is the identity forwards, to the bit, and makes a tensor of its own', () => {
    const before = tf.memory().numTensors;
    const x = tf.tensor(input!.values.slice(), input!.shape);
    const y = gradientReversal(x, LAMBDA);
    x.dispose();
    expect(new Float32Array(y.dataSync())).toEqual(input!.values);
    y.dispose();
    expect(tf.memory().numTensors).toBe(before);
  });

  it('has −λ times the slope of what it computes: the central difference with its sign turned', () => {
    const before = tf.memory().numTensors;
    const reversed = slope((x) => gradientReversal(x, LAMBDA));
    const plain = slope((x) => tf.mul(x, 1));
    expect(tf.memory().numTensors).toBe(before);
    for (let at = 0; at < reversed.length; at++) {
      const measured = difference((x) => gradientReversal(x, LAMBDA), at);
      expect(Math.abs(plain[at]! - measured)).toBeLessThan(5e-3);
      expect(Math.abs(reversed[at]! - -LAMBDA * measured)).toBeLessThan(5e-3);
    }
    const large = reversed.findIndex((value) => Math.abs(value) > 0.1);
    expect(Math.sign(reversed[large]!)).toBe(-Math.sign(plain[large]!));
  });

  it('turns only its own path: a direct one beside it keeps its sign, and λ = 0 lets nothing through', () => {
    const both = slope((x) => tf.add(tf.mul(x, 2), tf.sub(gradientReversal(x, 0.5), x)));
    // The value is 2x, so the outer slope is that at 2x; the paths sum to 2 − 0.5 − 1.
    const doubled = slope((x) => tf.mul(x, 2));
    both.forEach((value, at) => {
      expect(value).toBeCloseTo((doubled[at]! / 2) * (2 - 0.5 - 1), 5);
    });
    expect(slope((x) => gradientReversal(x, 0)).every((value) => value === 0)).toBe(true);
  });

  it('works under tfjs’s own gradients', () => {
    const values = tf.tidy(() => {
      const gradient = tf.grad((x) => follow(gradientReversal(x, LAMBDA)));
      return gradient(tf.tensor(input!.values.slice(), input!.shape)).dataSync<'float32'>();
    }) as unknown as Float32Array;
    expect(new Float32Array(values)).toEqual(slope((x) => gradientReversal(x, LAMBDA)));
  });
});

it.skipIf(!hasTorch)('keeps bf16 storage and turns its gradient', async () => {
  await loadEngine({ engine: 'torch', threads: 1 });
  const inHalf = (lambda: number) => slope((x) => toFloat32(gradientReversal(toCompute(x, 'bf16'), lambda)));
  const plain = inHalf(-1);
  inHalf(1).forEach((value, at) => {
    expect(value).toBe(-plain[at]!);
  });
});
