import { describe, expect, it } from 'vitest';
import { TensorWatch } from '../../worker/train/tensor-watch.ts';

function watched(counts: readonly number[]): (readonly [number, number])[] {
  const watch = new TensorWatch(undefined);
  return counts.flatMap((count) => {
    const growth = watch.after(count);
    return growth ? [[growth.from, growth.to] as const] : [];
  });
}

describe('TensorWatch', () => {
  it('says nothing of a count that stands, sinks, or steps up once', () => {
    expect(watched([90, 90, 98, 98, 98, 98, 90, 91, 92, 92, 92])).toEqual([]);
  });

  it('reports the third growing step in a row, then keeps quiet for a hundred', () => {
    expect(watched([90, 90, 91, 92, 93, 94, 95])).toEqual([[90, 93]]);
    expect(watched(Array.from({ length: 120 }, (_, i) => 90 + i))).toEqual([
      [90, 93],
      [90, 193],
    ]);
  });

  it('has the debugger name what was made since the count last stood still', () => {
    const calls: string[] = [];
    const namer = { mark: () => void calls.push('mark'), report: () => ['leaked: 3 × add [2]'] };
    const watch = new TensorWatch(namer);
    const reports = [5, 5, 6, 7, 8].map((count) => watch.after(count));
    expect(calls).toEqual(['mark', 'mark']);
    expect(reports.at(-1)).toEqual({ from: 5, to: 8, leaks: ['leaked: 3 × add [2]'] });
  });
});
