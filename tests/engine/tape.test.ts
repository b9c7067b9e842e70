import { beforeAll, describe, expect, it } from 'vitest';
import { torchBackend } from '../../engine/backend/torch-backend.ts';
import { AdamW, type Engine, layerNorm, linear, loadEngine, recordForward, tf } from '../../engine/index.ts';
import { internals } from '../../engine/tfjs-internals.ts';
import { engineNames } from '../support/engines.ts';

function variable(values: number[], shape: number[]): tf.Variable {
  return tf.tidy(() => tf.variable(tf.tensor(values, shape)));
}

describe.each(engineNames)('the tape on %s', (name) => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await loadEngine({ engine: name, threads: 1 });
  });

  it('reports a shared parameter once, after its last use', () => {
    const before = tf.memory().numTensors;
    const [w, v] = [variable([2, 3], [2]), variable([5, 7], [2])];
    const recording = recordForward(() => [tf.sum(tf.mul(tf.mul(w, v), w))]);
    const seed = tf.scalar(1);
    const seen: [number, number[]][] = [];
    recording.backward([seed], [w, v], (index, gradient) => seen.push([index, Array.from(gradient.dataSync())]));
    tf.dispose([seed, w, v]);
    expect(seen.sort((a, b) => a[0] - b[0])).toEqual([
      [0, [20, 42]],
      [1, [4, 9]],
    ]);
    expect(tf.memory().numTensors).toBe(before);
  });

  it('reports gradients while earlier ops are still to come', () => {
    const weights = [variable([1, 2], [2]), variable([3, 4], [2]), variable([5, 6], [2])];
    const recording = recordForward(() => [tf.sum(weights.reduce<tf.Tensor>((x, w) => tf.mul(x, w), tf.ones([2])))]);
    const seed = tf.scalar(1);
    const order: number[] = [];
    recording.backward([seed], weights, (index) => order.push(index));
    tf.dispose([seed, ...weights]);
    expect(order).toEqual([2, 1, 0]);
  });

  it('keeps several recordings alive at once and sweeps them in any order', () => {
    const before = tf.memory().numTensors;
    const w = variable([2], [1]);
    const recordings = [3, 4, 5].map((x) => recordForward(() => [tf.mul(w, tf.mul(w, x))]));
    const seed = tf.ones([1]);
    const gradients: number[] = [];
    for (const recording of [recordings[1]!, recordings[2]!, recordings[0]!]) {
      recording.backward([seed], [w], (_, gradient) => gradients.push(gradient.dataSync()[0]!));
    }
    tf.dispose([seed, w]);
    expect(gradients).toEqual([16, 20, 12]);
    expect(tf.memory().numTensors).toBe(before);
  });

  it('takes gradients for some outputs only and skips parameters they do not reach', () => {
    const before = tf.memory().numTensors;
    const [a, b] = [variable([2], [1]), variable([3], [1])];
    const recording = recordForward(() => [tf.square(a), tf.square(b)]);
    const seed = tf.ones([1]);
    const seen: number[] = [];
    recording.backward([null, seed], [a, b], (index, gradient) => seen.push(index, gradient.dataSync()[0]!));
    tf.dispose([seed, a, b]);
    expect(seen).toEqual([1, 6]);
    expect(tf.memory().numTensors).toBe(before);
  });

  it('frees everything when it is given up, when the forward throws, and when the listener throws', () => {
    const w = variable([2], [1]);
    const seed = tf.ones([1]);
    const before = tf.memory().numTensors;
    recordForward(() => [tf.square(w)]).dispose();
    expect(tf.memory().numTensors).toBe(before);
    expect(() =>
      recordForward(() => {
        tf.square(w);
        throw new Error('forward failed');
      }),
    ).toThrow('forward failed');
    expect(tf.memory().numTensors).toBe(before);
    const recording = recordForward(() => [tf.square(w)]);
    expect(() =>
      recording.backward([seed], [w], () => {
        throw new Error('listener failed');
      }),
    ).toThrow('listener failed');
    expect(tf.memory().numTensors).toBe(before);
    expect(() => recording.backward([seed], [w], () => undefined)).toThrow(/already swept/);
    tf.dispose([seed, w]);
  });

  it('does not hold what only constants need', () => {
    const w = variable([2], [1]);
    const recording = recordForward(() => {
      const constants = tf.exp(tf.square(tf.range(0, 100)));
      return [tf.mul(w, tf.sum(constants))];
    });
    // The output and the saved inputs of its product.
    const held = tf.memory().numTensors;
    recording.dispose();
    expect(held - tf.memory().numTensors).toBeLessThanOrEqual(3);
    w.dispose();
  });

  it('works under tfjs’s own gradients, too', () => {
    const result = tf.tidy(() => {
      const [x, w, b] = [tf.tensor2d([1, 2, 3, 4], [2, 2]), tf.tensor2d([1, 0, 2, 1], [2, 2]), tf.tensor1d([0, 1])];
      return tf
        .grads((...[p, q, r]) => tf.sum(linear(p!, q as tf.Tensor2D, r as tf.Tensor1D)))([x, w, b])
        .map((g) => Array.from(g.dataSync()));
    });
    expect(result).toEqual([
      [3, 1, 3, 1],
      [4, 6, 4, 6],
      [2, 2],
    ]);
  });

  it('holds as many tensors after 200 training steps as after the first', () => {
    const parameters = [
      variable(
        Array.from({ length: 12 }, (_, i) => Math.sin(i)),
        [4, 3],
      ),
      variable([1, 1, 1, 1], [4]),
      variable([0, 0, 0, 0], [4]),
    ];
    const [weight, gain, bias] = parameters as [tf.Variable, tf.Variable, tf.Variable];
    const optimizer = new AdamW(engine, { parameters, weightDecays: [0.1, 0, 0], beta1: 0.9, beta2: 0.98, eps: 1e-6 });
    const gradient = new Float32Array(20);
    const x = tf.tensor2d([1, 2, 3, -1, 0, 1], [2, 3]);
    const counts: number[] = [];
    const losses: number[] = [];
    for (let step = 0; step < 200; step++) {
      const recording = recordForward(() => {
        const y = layerNorm(linear(x, weight as never, null), gain as never, bias as never, 1e-5);
        return [tf.sum(tf.square(tf.sub(y, 0.5)))];
      });
      losses.push(recording.outputs[0]!.dataSync()[0]!);
      const seed = tf.scalar(1);
      recording.backward([seed], parameters, (index, g) =>
        engine.readInto(g, gradient.subarray([0, 12, 16][index], [12, 16, 20][index])),
      );
      seed.dispose();
      optimizer.step({ gradient, gradientScale: 1, lr: 0.01 });
      counts.push(tf.memory().numTensors, name === 'torch' ? torchBackend().addon.live() : 0);
    }
    expect(counts.slice(-2)).toEqual(counts.slice(0, 2));
    expect(losses.at(-1)!).toBeLessThan(losses[0]! / 2);
    optimizer.dispose();
    tf.dispose([x, ...parameters]);
  });

  it('finds the private members of tfjs-core where it expects them', () => {
    const inside = internals();
    expect(inside.state.activeTape ?? null).toBeNull();
    expect([inside.state.gradientDepth, inside.state.kernelDepth]).toEqual([0, 0]);
    expect(typeof inside.state.nextTapeNodeId).toBe('number');
    expect(inside.backendName).toBe(name);
    for (const method of ['startTape', 'endTape', 'makeTensorFromTensorInfo', 'moveData'] as const)
      expect(typeof inside[method]).toBe('function');
  });
});
