import { CoveyError } from '../common/errors.ts';
import { measureOps } from './engine/measure-ops.ts';
import { measureStep } from './engine/measure-steps.ts';
import { measureWorkers } from './engine/measure-workers.ts';
import type { Precision } from './engine/protocol.ts';
import { type EngineRow, rowLine } from './engine/rows.ts';
import { findPeers, type PeerName } from './engine/sides.ts';
import { stepCases } from './engine/step-specs.ts';
import type { BenchOptions } from './support/rows.ts';

export { engineTable as table } from './engine/rows.ts';

export interface EngineBenchOptions extends BenchOptions {
  /** Words, comma-separated: rows whose label (`step/…`, `workers/…`, `ops/…`) holds one of them. Without: all but the ops. */
  readonly only?: string;
  /** `1`, `2` or `1,2`. */
  readonly threads?: string;
  readonly precision?: string;
  readonly peers?: string;
}

const FULL = { steps: { rowMs: 20_000, stepsMin: 3 }, opRounds: 5, workerRounds: 12 };
const QUICK = { steps: { rowMs: 5_000, stepsMin: 2 }, opRounds: 2, workerRounds: 2 };

/** covey's engine against PyTorch, side by side in one run (bench/README.md). */
export async function run(options: EngineBenchOptions): Promise<EngineRow[]> {
  const byDefault = options.quick ? ['2'] : ['1', '2'];
  const threadCounts = listOf('threads', options.threads, ['1', '2', '4', '8', '16'], byDefault).map(Number);
  const precisions = listOf('precision', options.precision, ['fp32', 'bf16'] as Precision[]);
  const peers = findPeers(listOf('peers', options.peers, ['debian', 'newest'] as PeerName[]));
  const words = options.only?.toLowerCase().split(',') ?? [];
  const wanted = (label: string) =>
    words.length === 0 ? !label.startsWith('ops/') : words.some((word) => label.toLowerCase().includes(word));
  const effort = options.quick ? QUICK : FULL;
  const rows: EngineRow[] = [];
  const done = (...more: EngineRow[]) => {
    rows.push(...more);
    for (const row of more) process.stderr.write(`covey bench: ${rowLine(row)}\n`);
  };
  for (const precision of precisions) {
    for (const threads of threadCounts) {
      for (const testCase of stepCases(options.quick)) {
        if (!wanted(`step/${testCase.id} ${testCase.label}`)) continue;
        done(await measureStep(testCase, { precision, threads, ...effort.steps }, peers));
      }
      done(...(await measureOps({ precision, threads, rounds: effort.opRounds, wanted }, peers)));
    }
    if (wanted('workers')) done(...(await measureWorkers(precision, effort.workerRounds)));
  }
  return rows;
}

/** The items of a comma-separated option. @throws INVALID_ARGUMENT for one that is not among `allowed` */
function listOf<T extends string>(
  name: string,
  text: string | undefined,
  allowed: readonly T[],
  byDefault: readonly T[] = allowed,
): T[] {
  if (text === undefined) return [...byDefault];
  const items = text.split(',') as T[];
  const wrong = items.filter((item) => !allowed.includes(item));
  if (wrong.length > 0) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot run the benchmark: --${name} takes ${allowed.join(', ')}: value is ${wrong.join(', ')}`,
    );
  }
  return items;
}
