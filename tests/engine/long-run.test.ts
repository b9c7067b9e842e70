import { describe, expect, it } from 'vitest';
import { longRun } from '../../bench/support/long-run.ts';
import { loadEngine } from '../../engine/index.ts';
import { hasTorch } from '../support/engines.ts';

/**
 * Growth of resident memory over 800 steps that counts as none: 10 KiB a step. One leaked activation of the hidden layer would be 16 KiB a
 * step; the line through a sound run moves by less than 3 MiB either way. `npm run bench -- memory` shows the other two combinations.
 */
const RESIDENT_GROWTH_MAX = 8 * 2 ** 20;

describe.runIf(hasTorch)('a thousand steps', () => {
  it.each([
    ['fp32', 'none'],
    ['bf16', 'blocks'],
  ] as const)(
    'hold the same tensors, handles and storage, and resident memory is flat: %s, recompute %s',
    async (precision, recompute) => {
      const engine = await loadEngine({ engine: 'torch', threads: 1 });
      const figures = longRun(engine, { precision, recompute, steps: 1000, settledAfter: 200 });
      for (const [low, high] of [figures.tensors, figures.handles, figures.liveBytes]) expect(high).toBe(low);
      expect(figures.residentGrowthBytes).toBeLessThan(RESIDENT_GROWTH_MAX);
    },
    300_000,
  );
});
