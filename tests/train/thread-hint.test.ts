import { describe, expect, it } from 'vitest';
import type { RunConfig } from '../../common/config/run-config.ts';
import { threadHint } from '../../worker/train/thread-hint.ts';

const lanes = (count: number, laneBatch: number) =>
  ({ train: { lanes: count, globalBatch: count * laneBatch } }) as Pick<RunConfig, 'train'>;

describe('threadHint', () => {
  it('advises more workers where lanes are small and a worker has several threads', () => {
    const hint = threadHint(lanes(8, 8), { threads: 2, workers: 1, onGpu: false });
    expect(hint).toMatch(/^lanes of 8 samples .* workers of 2 threads: .* up to 8 /);
  });

  it.each([
    ['lanes are large', lanes(8, 16), { threads: 2, workers: 1, onGpu: false }],
    ['each has one thread', lanes(8, 8), { threads: 1, workers: 2, onGpu: false }],
    ['there are as many workers as lanes', lanes(2, 8), { threads: 2, workers: 2, onGpu: false }],
    ['a GPU computes', lanes(8, 8), { threads: 2, workers: 1, onGpu: true }],
  ])('says nothing where %s', (_, config, machine) => {
    expect(threadHint(config, machine)).toBeUndefined();
  });
});
