import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { beforeAll, describe, expect, it } from 'vitest';
import { torchBackend } from '../../engine/backend/torch-backend.ts';
import { layerNorm, linear, loadEngine, recordForward, type Tensor, tensorDebugger, tf } from '../../engine/index.ts';
import { engineNames, hasTorch } from '../support/engines.ts';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

const debug = () => tensorDebugger()!;

function leakyLayer(x: Tensor): Tensor {
  const w = tf.ones([3, 2]) as tf.Tensor2D;
  return linear(x, w, null);
}

describe.each(engineNames)('the tensor debugger on %s', (name) => {
  beforeAll(async () => {
    await loadEngine({ engine: name, threads: 1, debugTensors: true });
  });

  it('names a leaked tensor by op, shape, scope and call site, and forgets it once disposed', () => {
    const x = tf.tensor2d([1, 2, 3, 4], [2, 2]);
    debug().mark();
    expect(debug().leaks()).toEqual([]);
    const leaked: Tensor[] = [];
    for (let i = 0; i < 3; i++) tf.tidy('block 7', () => void leaked.push(tf.keep(leakyLayer(x))));
    const sum = tf.add(x, 1);
    const leaks = debug().leaks();
    expect(leaks.map(({ shape, count, bytes, scope }) => ({ shape, count, bytes, scope }))).toEqual([
      { shape: [2, 3], count: 3, bytes: 72, scope: 'block 7' },
      { shape: [2, 2], count: 1, bytes: 16, scope: '' },
    ]);
    expect(leaks[0]!.op).toBe('linear');
    expect(leaks[0]!.stack[0]).toMatch(/^leakyLayer \(tests\/engine\/tensor-debugger\.test\.ts:\d+\)$/);
    expect(leaks[1]!.op).toBe('add');
    expect(debug().report()[0]).toMatch(/^leaked: 3 × linear \[2,3\], 72 B in block 7, made at leakyLayer \(/);
    tf.dispose([...leaked, sum]);
    expect(debug().leaks()).toEqual([]);
    x.dispose();
  });

  it('finds nothing after a recording that was swept or given up', () => {
    const w = tf.tidy(() => tf.variable(tf.tensor2d([1, 2, 3, 4], [2, 2])));
    const norm = [1, 0].map((value) => tf.tidy(() => tf.variable(tf.fill([2], value)))) as unknown as [
      tf.Tensor1D,
      tf.Tensor1D,
    ];
    debug().mark();
    const record = () =>
      recordForward(() => [layerNorm(linear(tf.ones([5, 2]), w as unknown as tf.Tensor2D, null), ...norm, 1e-5)]);
    const held = record();
    expect(debug().leaks().length).toBeGreaterThan(0);
    const seed = tf.ones([5, 2]);
    held.backward([seed], [w], () => undefined);
    seed.dispose();
    record().dispose();
    expect(debug().leaks()).toEqual([]);
    tf.dispose([w, ...norm]);
  });
});

describe.runIf(hasTorch)('native handles whose owner was never disposed', () => {
  it('are released when it is collected, and named', async () => {
    await loadEngine({ engine: 'torch', threads: 1, debugTensors: true });
    const { addon } = torchBackend();
    const before = addon.live();
    const lose = () => {
      for (let i = 0; i < 100; i++) tf.square(tf.ones([10]));
      const w = tf.tidy(() => tf.variable(tf.ones([4])));
      // Dropped without backward or dispose, with the statistics that its layer norm saved.
      recordForward(() => [layerNorm(tf.ones([3, 4]), w as unknown as tf.Tensor1D, w as unknown as tf.Tensor1D, 1e-5)]);
      w.dispose();
    };
    lose();
    expect(addon.live()).toBeGreaterThanOrEqual(before + 200);
    for (let i = 0; i < 20 && addon.live() > before + 2; i++) {
      collectGarbage();
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    // The last one or two may still be referred to from the stack.
    expect(addon.live()).toBeLessThanOrEqual(before + 2);
    const reclaimed = debug().handles.reclaimed();
    expect(reclaimed.find(({ op }) => op === 'square')!.count).toBeGreaterThanOrEqual(98);
    expect(reclaimed.find(({ op }) => op === 'layer-norm')?.stack.join()).toMatch(/tensor-debugger\.test\.ts/);
    expect(
      debug()
        .report()
        .some((line) => /^collected undisposed: \d+ × square, made at lose \(/.test(line)),
    ).toBe(true);
  });
});
