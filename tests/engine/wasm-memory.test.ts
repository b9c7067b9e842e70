import { expect, it } from 'vitest';
import { loadEngine, tf } from '../../engine/index.ts';
import { allocationError } from '../../engine/out-of-memory.ts';

it('a tensor that a WebAssembly memory has no room for is refused, and nothing is written over', async () => {
  const engine = await loadEngine({ engine: 'wasm', threads: 1 });
  const kept = tf.range(0, 1000);
  const before = engine.memory().liveBytes;
  const half = () =>
    tf.engine().makeTensorFromTensorInfo({
      dataId: tf.backend().write(null as never, [2 ** 29], 'float32'),
      shape: [2 ** 29],
      dtype: 'float32',
    });
  // Two halves of 4 GiB: malloc says no. More than 32 bits can count, and a multiple of what they can: malloc would say yes.
  const first = half();
  for (const allocate of [half, () => tf.fill([2 ** 16, 2 ** 16], 1), () => tf.fill([2 ** 24, 2 ** 24], 1)]) {
    let thrown: unknown;
    try {
      allocate();
    } catch (error) {
      thrown = error;
    }
    expect(allocationError(thrown)).toMatchObject({
      code: 'RESOURCE_EXHAUSTED',
      message: expect.stringMatching(/cannot allocate \d+ bytes/),
    });
  }
  first.dispose();
  expect(engine.memory().liveBytes).toBe(before);
  expect(Array.from(kept.dataSync())).toEqual(Array.from({ length: 1000 }, (_, i) => i));
  expect(tf.tidy(() => tf.sum(tf.add(kept, 1)).dataSync()[0])).toBe(500_500);
  kept.dispose();
  engine.close();
});
