import { loadEngine } from '../engine/index.ts';
import { type LongRunFigures, longRun } from './support/long-run.ts';
import type { BenchOptions, BenchRow } from './support/rows.ts';

const MIB = 2 ** 20;

/** A thousand steps of a small model: what its memory does after the first two hundred, in each precision, with and without recomputation. */
export async function run({ quick }: BenchOptions): Promise<BenchRow[]> {
  const engine = await loadEngine({ engine: 'auto', threads: 1 });
  const steps = quick ? 400 : 1000;
  const rows: BenchRow[] = [];
  for (const precision of ['fp32', 'bf16'] as const) {
    for (const recompute of ['none', 'blocks'] as const) {
      const figures = longRun(engine, { precision, recompute, steps, settledAfter: 200 });
      const label = `${steps} steps, ${engine.name}, ${precision}, recompute ${recompute}`;
      rows.push(...figureRows(label, figures));
    }
  }
  engine.close();
  return rows;
}

function figureRows(label: string, figures: LongRunFigures): BenchRow[] {
  const row = (what: string, ours: number, unit: string): BenchRow => ({
    case: `${label}: ${what}`,
    ours,
    peer: null,
    ratio: null,
    unit,
  });
  const growth = ([low, high]: readonly [number, number]) => high - low;
  return [
    row('live tensors, largest − smallest', growth(figures.tensors), 'tensors'),
    row('native handles, largest − smallest', growth(figures.handles), 'handles'),
    row('live storage, largest − smallest', growth(figures.liveBytes), 'B'),
    row('peak storage of a step', figures.peakBytes / MIB, 'MiB'),
    row('growth of resident memory', figures.residentGrowthBytes / MIB, 'MiB'),
  ];
}
