import { describe, expect, it } from 'vitest';
import { maximalSubtrees, treeAdditions } from '../../worker/collectives/lane-tree.ts';
import { laneSchedule } from '../../worker/train/lane-schedule.ts';

/** Sums lane values in fp32 by following a worker's schedule, then the tree over all workers' results. */
function sumByWorkers(values: readonly number[], cuts: readonly number[]): number {
  const lanes = values.length;
  const leaves: { begin: number; end: number }[] = [];
  const sums: number[] = [];
  for (let i = 0; i + 1 < cuts.length; i++) {
    const held = { begin: cuts[i]!, end: cuts[i + 1]! };
    const schedule = laneSchedule(lanes, held);
    const buffers = new Float32Array(schedule.bufferCount);
    for (const step of schedule.steps) {
      const value = values[step.lane]!;
      buffers[step.buffer] = step.starts ? value : buffers[step.buffer]! + value;
      for (const { target, source } of step.merges) buffers[target] = buffers[target]! + buffers[source]!;
    }
    maximalSubtrees(lanes, held).forEach((leaf, index) => {
      leaves.push(leaf);
      sums.push(buffers[schedule.results[index]!]!);
    });
  }
  for (const { target, source } of treeAdditions({ begin: 0, end: lanes }, leaves)) {
    sums[target] = Math.fround(sums[target]! + sums[source]!);
  }
  return sums[0]!;
}

function cutsOf(lanes: number): number[][] {
  const all: number[][] = [[0, lanes]];
  for (let a = 1; a < lanes; a++) {
    all.push([0, a, lanes]);
    for (let b = a + 1; b < lanes; b++) all.push([0, a, b, lanes]);
  }
  return all;
}

describe('laneSchedule', () => {
  it('gives the same bits however the lanes are divided among up to three workers', () => {
    for (const lanes of [1, 2, 3, 4, 5, 6, 7, 8, 12, 16]) {
      const values = Array.from({ length: lanes }, (_, lane) =>
        Math.fround(Math.sin(lane * 7.3 + lanes) * 10 ** (lane % 5)),
      );
      const expected = sumByWorkers(values, [0, lanes]);
      for (const cuts of cutsOf(lanes))
        expect(sumByWorkers(values, cuts), `lanes ${lanes} cuts ${cuts}`).toBe(expected);
    }
  });

  it('computes every held lane once, in order, with few buffers', () => {
    const schedule = laneSchedule(64, { begin: 5, end: 53 });
    expect(schedule.steps.map((step) => step.lane)).toEqual(Array.from({ length: 48 }, (_, i) => i + 5));
    expect(schedule.bufferCount).toBeLessThanOrEqual(12);
  });
});
