import { beforeAll, describe, expect, it } from 'vitest';
import { RandomStream } from '../../common/random.ts';
import { torchBackend } from '../../engine/backend/torch-backend.ts';
import { digest, sumOfSquares } from '../../engine/host-math.ts';
import { AdamW, type Engine, loadEngine, tf, toCompute } from '../../engine/index.ts';
import { engineNames, hasTorch } from '../support/engines.ts';

function randomFloats(count: number): Float32Array {
  const random = new RandomStream('engine', count);
  return Float32Array.from(new Float32Array(new SharedArrayBuffer(4 * count)).map(() => random.normal()));
}

describe.each(engineNames)('the %s engine', (name) => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await loadEngine({ engine: name, threads: 1 });
  });

  it('copies, adds and overwrites through shared memory', () => {
    const shared = new Float32Array(new SharedArrayBuffer(16));
    const x = tf.tensor1d([1, 2, 3, 4]);
    engine.readInto(x, shared);
    engine.addInto(x, shared);
    expect(Array.from(shared)).toEqual([2, 4, 6, 8]);
    engine.addVectors(shared.subarray(1, 3), new Float32Array([10, 20]));
    engine.writeFrom(x, shared);
    expect(Array.from(x.dataSync())).toEqual([2, 14, 26, 8]);
    x.dispose();
  });

  it('does not change the array a tensor was made from', () => {
    const source = new Float32Array([1, 2]);
    const x = tf.tensor1d(source);
    engine.writeFrom(x, new Float32Array([3, 4]));
    expect(Array.from(source)).toEqual([1, 2]);
    x.dispose();
  });

  it.each([0, 1, 7, 8, 4095, 4096, 4097, 10_003])(
    'sums squares of %i values as the reference does, bit for bit',
    (count) => {
      const values = randomFloats(count);
      expect(engine.sumOfSquares(values)).toBe(sumOfSquares(values));
    },
  );

  it.each([1, 15, 16, 1000])('digests %i values as the reference does and notices a single bit', (count) => {
    const values = randomFloats(count);
    const x = tf.tensor1d(values.slice());
    expect(engine.digest([x, x])).toBe(digest([values, values]));
    expect(engine.digest([x])).toMatch(/^[0-9a-f]{16}$/);
    const changed = values.slice();
    new Uint32Array(changed.buffer)[count - 1]! ^= 1;
    expect(engine.digest([x])).not.toBe(digest([changed]));
    x.dispose();
  });

  it('takes AdamW steps as a scalar reference does, with per-parameter decay and frozen parameters', () => {
    const counts = [20_001, 3];
    const initial = counts.map((count) => randomFloats(count));
    const parameters = initial.map((values) => tf.tidy(() => tf.variable(tf.tensor1d(values.slice()))));
    const options = { beta1: 0.9, beta2: 0.98, eps: 1e-6, weightDecays: [0.2, 0], lrScales: [1, 0] };
    const optimizer = new AdamW(engine, { parameters, ...options });
    const gradient = randomFloats(20_004);
    for (let step = 0; step < 3; step++) optimizer.step({ gradient, gradientScale: 0.5, lr: 0.01 });
    const updated = parameters[0]!.dataSync();
    for (const at of [0, 1, 777, 20_000]) {
      let [p, m, v] = [initial[0]![at]!, 0, 0];
      for (let step = 1; step <= 3; step++) {
        const g = gradient[at]! * 0.5;
        m = 0.9 * m + 0.1 * g;
        v = 0.98 * v + 0.02 * g * g;
        p = p * (1 - 0.01 * 0.2) - (0.01 * (m / (1 - 0.9 ** step))) / (Math.sqrt(v / (1 - 0.98 ** step)) + 1e-6);
      }
      expect(Math.abs(updated[at]! - p)).toBeLessThan(1e-6 * Math.max(1, Math.abs(p)));
    }
    expect(Array.from(parameters[1]!.dataSync())).toEqual(Array.from(initial[1]!));
    expect(optimizer.stepCount).toBe(3);
    optimizer.dispose();
    tf.dispose(parameters);
  });

  it('refuses lengths that do not fit', () => {
    const x = tf.tensor1d([1, 2, 3]);
    expect(() => engine.readInto(x, new Float32Array(2))).toThrow(/3 elements/);
    expect(() => engine.writeFrom(x, new Float32Array(4))).toThrow(/3 elements/);
    expect(() => engine.addVectors(new Float32Array(2), new Float32Array(3))).toThrow(/2 and 3/);
    x.dispose();
  });
});

it('auto takes the torch engine where its addon is built', async () => {
  const engine = await loadEngine({ engine: 'auto', threads: 1 });
  expect(engine.name).toBe(hasTorch ? 'torch' : 'wasm');
});

it('refuses a number of threads that is none', async () => {
  await expect(loadEngine({ engine: 'cpu', threads: 0 })).rejects.toThrow(
    /threads must be a whole number ≥ 1: value is 0/,
  );
});

describe.skipIf(!hasTorch)('the addon', () => {
  it('turns misuse into JavaScript exceptions', async () => {
    await loadEngine({ engine: 'torch', threads: 1 });
    const { addon } = torchBackend();
    const handle = addon.fromTyped(new Float32Array([1, 2]), [2], 6);
    addon.release(handle);
    expect(() => addon.release(handle)).toThrow(/invalid or released tensor handle/);
    expect(() => addon.toTyped(handle)).toThrow(/invalid or released tensor handle/);
    expect(() => addon.fromTyped(new Float32Array(3), [2], 6)).toThrow(/3 elements, the shape needs 2/);
    expect(() => addon.lookup('aten::no_such_operator', '')).toThrow(/no_such_operator/);
    const ints = addon.fromTyped(new Int32Array([1, 2]), [2], 3);
    expect(() => addon.gelu(ints, false, false)).toThrow(/expected float32 or bfloat16/);
    expect(() => addon.readInto(ints, new Float32Array(2))).toThrow(/expected float32 or bfloat16/);
    addon.release(ints);
  });

  it('forgets a variable’s bf16 copy when the variable is written in place', async () => {
    const engine = await loadEngine({ engine: 'torch', threads: 1 });
    const { linear } = await import('../../engine/index.ts');
    const w = tf.tidy(() => tf.variable(tf.tensor2d([[1, 1]])));
    const x = tf.tidy(() => tf.keep(toCompute(tf.tensor2d([[1, 2]]), 'bf16')));
    const product = () => tf.tidy(() => linear(x, w as unknown as tf.Tensor2D, null).dataSync()[0]);
    expect(product()).toBe(3);
    engine.writeFrom(w, new Float32Array([2, 2]));
    expect(product()).toBe(6);
    w.assign(tf.tensor2d([[4, 4]]));
    expect(product()).toBe(12);
    tf.dispose([w, x]);
  });
});
