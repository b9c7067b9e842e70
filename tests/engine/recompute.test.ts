import { beforeAll, describe, expect, it } from 'vitest';
import { torchBackend } from '../../engine/backend/torch-backend.ts';
import {
  type Engine,
  gelu,
  layerNorm,
  linear,
  loadEngine,
  recompute,
  recordForward,
  type Tensor,
  tf,
  toCompute,
  toFloat32,
} from '../../engine/index.ts';
import { engineNames } from '../support/engines.ts';

function variable(name: number, shape: number[]): tf.Variable {
  const size = shape.reduce((a, b) => a * b, 1);
  return tf.tidy(() =>
    tf.variable(
      tf.tensor(
        Float32Array.from({ length: size }, (_, i) => Math.sin(name + i)),
        shape,
      ),
    ),
  );
}

interface Seen {
  readonly order: number[];
  readonly gradients: Map<number, number[]>;
}

describe.each(engineNames)('recomputation on %s', (name) => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await loadEngine({ engine: name, threads: 1 });
  });

  const held = () => [tf.memory().numTensors, name === 'torch' ? torchBackend().addon.live() : 0];

  /** Three blocks with weights of their own and one that all share, used in the middle and again at the end. */
  function model() {
    const blocks = [0, 1, 2].map((b) => [variable(b, [6, 6]), variable(10 + b, [6]), variable(20 + b, [6])] as const);
    const shared = variable(30, [6, 6]);
    const parameters = [...blocks.flat(), shared];
    const block = (x: Tensor, skip: Tensor, b: number): Tensor[] => {
      const [weight, gain, bias] = blocks[b]! as unknown as [tf.Tensor2D, tf.Tensor1D, tf.Tensor1D];
      const y = gelu(linear(layerNorm(x, gain, bias, 1e-5), weight, bias));
      const z = linear(y, shared as unknown as tf.Tensor2D, null);
      return [tf.add(z, skip), tf.mul(y, gain)];
    };
    return { parameters, block };
  }

  function gradients(
    parameters: readonly tf.Variable[],
    f: (x: Tensor) => Tensor[],
    precision: 'fp32' | 'bf16' = 'fp32',
  ): Seen {
    const x = tf.tidy(() =>
      toCompute(
        tf.tensor2d(
          Float32Array.from({ length: 24 }, (_, i) => Math.cos(3 * i)),
          [4, 6],
        ),
        precision,
      ),
    );
    const recording = recordForward(() => f(x).map((y) => tf.mean(toFloat32(y))));
    const seeds = recording.outputs.map((_, i) => tf.scalar(1 + 0.37 * i));
    const seen: Seen = { order: [], gradients: new Map() };
    recording.backward(seeds, parameters, (index, gradient) => {
      expect(seen.gradients.has(index)).toBe(false);
      seen.order.push(index);
      seen.gradients.set(index, Array.from(gradient.dataSync()));
    });
    tf.dispose([x, ...seeds]);
    return seen;
  }

  it.each(['fp32', 'bf16'] as const)('has the bits and the order of the run without it, in %s', (precision) => {
    const { parameters, block } = model();
    const run = (wrap: (f: (x: Tensor, skip: Tensor) => Tensor[], inputs: [Tensor, Tensor]) => Tensor[]) =>
      gradients(
        parameters,
        (input) => {
          let [x, skip] = [input, input];
          for (let b = 0; b < 3; b++) [x, skip] = wrap((p, q) => block(p, q, b), [x, skip]) as [Tensor, Tensor];
          // Used once more outside of every block.
          return [linear(x, parameters.at(-1)! as unknown as tf.Tensor2D, null), skip];
        },
        precision,
      );
    const plain = run((f, inputs) => f(...inputs));
    expect(plain.order).toHaveLength(10);
    const before = held();
    const again = run((f, inputs) => recompute(f as (...x: Tensor[]) => Tensor[], inputs));
    // The bf16 copies of weights are made once and stay.
    if (precision === 'fp32') expect(held()).toEqual(before);
    expect(again).toEqual(plain);
    const nested = run((f, inputs) => recompute((x, skip) => recompute((p, q) => f(p!, q!), [x!, skip!]), inputs));
    expect(nested).toEqual(plain);
    expect(held()[0]).toBe(before[0]);
    tf.dispose(parameters);
  });

  it('makes inputs again that were not kept', () => {
    const { parameters, block } = model();
    const run = (wrap: (f: (...x: Tensor[]) => Tensor[], inputs: Tensor[]) => Tensor[]) =>
      gradients(parameters, (x) => wrap((p, q) => block(p!, q!, 0), [tf.square(x), tf.mul(tf.square(x), 2)]));
    const plain = run((f, inputs) => f(...inputs));
    let remade = 0;
    const remake = (kept: Tensor) => {
      remade++;
      return [tf.mul(kept, 2)];
    };
    const before = held();
    expect(run((f, inputs) => recompute(f, inputs, { keep: { count: 1, remake } }))).toEqual(plain);
    expect(remade).toBe(1);
    expect(held()).toEqual(before);
    tf.dispose(parameters);
  });

  it('passes gradients on to what comes before, and takes frozen and unreached parameters as they are', () => {
    const w = variable(1, [3]);
    const frozen = tf.tidy(() => tf.variable(tf.tensor1d([2, 3, 4]), false));
    const [unused, first] = [variable(2, [3]), variable(3, [3])];
    const before = held();
    const run = (wrap: typeof recompute) => {
      const recording = recordForward(() => {
        const x = tf.mul(first, 2);
        const [y] = wrap(
          (input) => {
            tf.square(unused);
            return [tf.mul(tf.mul(input!, w), frozen), input!];
          },
          [x],
        );
        return [tf.sum(y!)];
      });
      const seed = tf.scalar(1);
      const seen: [number, number[]][] = [];
      recording.backward([seed], [w, unused, first], (i, g) => seen.push([i, Array.from(g.dataSync())]));
      seed.dispose();
      return seen;
    };
    const plain = run((f, inputs) => f(...inputs));
    expect(plain.map(([index]) => index)).toEqual([0, 2]);
    expect(run(recompute)).toEqual(plain);
    expect(held()).toEqual(before);
    tf.dispose([w, frozen, unused, first]);
  });

  it('keeps several recordings alive at once', () => {
    const { parameters, block } = model();
    const before = held();
    const record = (scale: number) =>
      recordForward(() => {
        const x = tf.reshape(tf.sin(tf.mul(tf.range(0, 24), scale)), [4, 6]);
        return recompute((p, q) => block(p!, q!, 1), [x, x]);
      });
    const recordings = [0.3, 0.5].map(record);
    const sweep = (recording: ReturnType<typeof record>) => {
      const seed = tf.ones([4, 6]);
      const all: number[][] = [];
      recording.backward([seed, null], parameters, (_, g) => all.push(Array.from(g.dataSync())));
      seed.dispose();
      return all;
    };
    const second = sweep(recordings[1]!);
    const first = sweep(recordings[0]!);
    expect(sweep(record(0.5))).toEqual(second);
    expect(first).not.toEqual(second);
    expect(held()).toEqual(before);
    tf.dispose(parameters);
  });

  it('leaves nothing behind when a run or the listener throws, or when it is given up', () => {
    const { parameters, block } = model();
    const before = held();
    let runs = 0;
    const record = (failsIn: number) =>
      recordForward(() => {
        const x = tf.ones([4, 6]);
        return recompute(
          (p, q) => {
            const outputs = block(p!, q!, 0);
            if (++runs === failsIn) throw new Error('the block failed');
            return outputs;
          },
          [x, x],
        );
      });
    expect(() => record(1)).toThrow('the block failed');
    expect(held()).toEqual(before);
    const seed = tf.ones([4, 6]);
    const recording = record(3);
    expect(() => recording.backward([seed, null], parameters, () => undefined)).toThrow('the block failed');
    seed.dispose();
    expect(held()).toEqual(before);
    const other = record(0);
    const one = tf.ones([4, 6]);
    expect(() =>
      other.backward([one, null], parameters, () => {
        throw new Error('the listener failed');
      }),
    ).toThrow('the listener failed');
    one.dispose();
    expect(held()).toEqual(before);
    record(0).dispose();
    expect(held()).toEqual(before);
    tf.dispose(parameters);
  });

  it('refuses tensors from outside that are not inputs, whose gradient would be lost', () => {
    const w = variable(1, [3]);
    const before = held();
    expect(() =>
      recordForward(() => {
        const outside = tf.square(w);
        return recompute((x) => [tf.mul(x!, outside)], [tf.square(w)]);
      }),
    ).toThrow(/Cannot recompute: .*not among the inputs: Multiply of \[3\]/);
    expect(held()).toEqual(before);
    w.dispose();
  });

  it('just runs where nothing is recorded', () => {
    const before = held();
    const x = tf.tensor1d([1, 2, 3]);
    const [y] = recompute((input) => [tf.square(tf.add(input!, 1))], [x]);
    expect(Array.from(y!.dataSync())).toEqual([4, 9, 16]);
    tf.dispose([x, y!]);
    expect(held()).toEqual(before);
  });

  it('works under tfjs’s own gradients, too', () => {
    const before = held();
    const f = (x: Tensor) => tf.sum(recompute((p) => [tf.square(tf.mul(p!, 3)), tf.neg(p!)], [x])[0]!) as tf.Scalar;
    const gradient = tf.grad(f)(tf.tensor1d([1, 2]));
    expect(Array.from(gradient.dataSync())).toEqual([18, 36]);
    gradient.dispose();
    // The literal above is the test's own.
    expect(held()[0]! - before[0]!).toBe(1);
    expect(engine.name).toBe(name);
  });
});
