import { beforeAll, describe, expect, it } from 'vitest';
import { type FallbackUse, fallbackUses, loadEngine, onHotFallback, tf } from '../../engine/index.ts';
import { hasTorch } from '../support/engines.ts';

const callsOf = (kernel: string) => fallbackUses().find((use) => use.kernel === kernel)?.calls ?? 0;
const unique = () => tf.tidy(() => Array.from(tf.unique(tf.tensor1d([2, 1, 2])).values.dataSync()));

describe.skipIf(!hasTorch)('kernels that the torch engine has not', () => {
  beforeAll(async () => {
    await loadEngine({ engine: 'torch', threads: 1 });
  });

  it('run in JavaScript and are counted', () => {
    const before = callsOf('Unique');
    expect(unique()).toEqual([2, 1]);
    expect(callsOf('Unique')).toBe(before + 1);
  });

  it('are not counted where a native one exists', () => {
    const before = fallbackUses().length;
    tf.tidy(() => tf.cumsum(tf.tensor1d([1, 2, 3])).dataSync());
    expect(fallbackUses().length).toBe(before);
  });

  it('are reported once each when they become hot, also to those who ask later', () => {
    const heard: FallbackUse[] = [];
    const end = onHotFallback((use) => heard.push(use));
    for (let i = 0; i < 250; i++) unique();
    end();
    expect(heard.map(({ kernel }) => kernel)).toEqual(['Unique']);
    expect(heard[0]!.calls).toBeLessThanOrEqual(100);
    expect(heard[0]!.milliseconds).toBeGreaterThan(0);
    const later: string[] = [];
    onHotFallback(({ kernel }) => later.push(kernel))();
    expect(later).toEqual(['Unique']);
  });

  it('leave nothing behind, neither tensors nor handles, also when they throw', async () => {
    const { torchBackend } = await import('../../engine/backend/torch-backend.ts');
    const { addon } = torchBackend();
    const before = [tf.memory().numTensors, addon.live()];
    unique();
    const splits = () => [tf.tensor1d([0, 9], 'int32')];
    const ragged = () => tf.tidy(() => void tf.raggedGather(splits(), tf.ones([2]), tf.tensor1d([0], 'int32'), 1));
    expect(ragged).toThrow(/must not point past values/);
    expect([tf.memory().numTensors, addon.live()]).toEqual(before);
  });

  it('take strings across', () => {
    const buckets = tf.tidy(() => Array.from(tf.string.stringToHashBucketFast(['a', 'b', 'a'], 7).dataSync()));
    expect(buckets[0]).toBe(buckets[2]);
    expect(tf.tidy(() => tf.concat([tf.tensor1d(['a']), tf.tensor1d(['b'])]).arraySync())).toEqual(['a', 'b']);
  });

  it('take complex numbers across', async () => {
    const { fallbackKernel } = await import('../../engine/backend/fallback.ts');
    const { torchBackend } = await import('../../engine/backend/torch-backend.ts');
    const kernel = fallbackKernel('Multiply', tf.getKernel('Multiply', 'cpu').kernelFunc, torchBackend());
    const product = tf.tidy(() => {
      const [a, b] = [tf.complex([1, 2], [3, 4]), tf.complex([5, 6], [7, 8])];
      const { dataId } = kernel({ inputs: { a, b }, attrs: {}, backend: {} }) as tf.TensorInfo;
      const values = torchBackend().readSync(dataId);
      torchBackend().disposeData(dataId);
      return Array.from(values as Float32Array);
    });
    expect(product).toEqual([5 - 21, 7 + 15, 12 - 32, 16 + 24]);
  });
});
