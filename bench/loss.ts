import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { builtModule } from '../common/built-module.ts';
import { findPeers, sideEnvironment } from './engine/sides.ts';
import { gradCacheRows } from './loss/grad-cache.ts';
import type { LossMemory, LossName, LossReady, LossRequest, LossSettings, LossTimes } from './loss/protocol.ts';
import { LineProcess } from './support/line-process.ts';
import { type BenchOptions, type BenchRow, type BenchTable, median } from './support/rows.ts';
import { startPython } from './support/torch-peer.ts';

const WIDTH = 512;
const MIB = 2 ** 20;
const BATCHES = [8192, 32_768, 131_072];
/** Of 64 ranks. */
const RANKS = 64;
/** Rows of a rank that stay the same while the batch grows. */
const FIXED_ROWS = 512;
/** The bars: memory at 32k, and time. */
const MEMORY_RATIO_MIN = 20;

/** The threads of the side whose turn is over spin for some milliseconds, which would be a fifth of the shortest turn of the next one. */
const TURN_PAUSE_MS = 50;

interface LossCase extends Omit<LossSettings, 'threads' | 'width'> {
  /** Timed repetitions per side; 0: memory only. */
  readonly rounds: number;
}

export interface LossBenchOptions extends BenchOptions {
  /** `1`, `2`, …: threads of each side. Default 2. */
  readonly threads?: string;
  /** Words, comma-separated: cases whose name holds one of them. */
  readonly only?: string;
}

/**
 * The loss of one rank of 64: covey's, tiled and exact, against PyTorch's plain local loss (open_clip's `local_loss` with `gather_with_grad`), memory and time;
 * then what a two-pass step costs (bench/README.md).
 */
export async function run({ quick, threads = '2', only }: LossBenchOptions): Promise<BenchRow[]> {
  const words = only?.toLowerCase().split(',') ?? [''];
  const wanted = (name: string) => words.some((word) => name.toLowerCase().includes(word));
  const rows: BenchRow[] = [];
  for (const one of lossCases(quick)) {
    if (wanted(nameOf(one))) rows.push(...(await measure(one, Number(threads))));
  }
  if (wanted('gradcache')) rows.push(...(await gradCacheRows(Number(threads), quick)));
  return rows;
}

function lossCases(quick: boolean): LossCase[] {
  const batches = quick ? BATCHES.slice(0, 2) : BATCHES;
  const rounds = (samples: number) => (samples > 100_000 ? 2 : quick ? 3 : 7);
  const shared = (loss: LossName) =>
    batches.map((samples) => ({ loss, samples, rows: samples / RANKS, rounds: rounds(samples) }));
  const fixed = batches
    .filter((samples) => samples / RANKS !== FIXED_ROWS)
    .map((samples) => ({ loss: 'clip' as const, samples, rows: FIXED_ROWS, rounds: 0 }));
  return [...shared('clip'), ...fixed, ...shared('siglip')];
}

function nameOf({ loss, samples, rows }: LossCase): string {
  return `${loss}, N ${samples / 1024}k, ${rows} rows`;
}

async function measure(one: LossCase, threads: number): Promise<BenchRow[]> {
  const sides = await startSides({ ...one, width: WIDTH, threads });
  try {
    const memories: LossMemory[] = [];
    for (const side of sides) memories.push(await side.ask<LossMemory>({ do: 'memory' }));
    const beyond = memories.map(({ beyondBytes }) => beyondBytes / MIB);
    const rows = [row(`${nameOf(one)}: memory`, beyond, 'MiB')];
    if (one.rounds === 0) return rows;
    const times: LossTimes[][] = sides.map(() => []);
    for (let round = 0; round < one.rounds; round++) {
      for (const [i, side] of sides.entries()) {
        await delay(TURN_PAUSE_MS);
        times[i]!.push(await side.ask<LossTimes>({ do: 'run', count: 1 }));
      }
    }
    for (const [what, of] of [
      ['time', 'seconds'],
      ['CPU time', 'cpuSeconds'],
    ] as const) {
      const ms = times.map((all) => 1000 * median(all.flatMap((each) => each[of])));
      rows.push(row(`${nameOf(one)}: ${what}`, ms, 'ms'));
    }
    return rows;
  } finally {
    for (const side of sides) await side.close();
  }
}

function row(name: string, [ours, peer]: readonly number[], unit: string): BenchRow {
  const found: BenchRow = {
    case: name,
    ours: ours!,
    peer: peer ?? null,
    ratio: peer === undefined ? null : peer / ours!,
    unit,
  };
  process.stderr.write(`covey bench: ${name}: ${ours!.toFixed(1)} against ${peer?.toFixed(1) ?? '-'} ${unit}\n`);
  return found;
}

interface LossSide {
  ask<A>(request: LossRequest): Promise<A>;
  close(): Promise<void>;
}

/** covey's side, and PyTorch's where it is installed. */
async function startSides(settings: LossSettings): Promise<LossSide[]> {
  const env = sideEnvironment(settings.threads);
  const module = fileURLToPath(builtModule('bench/loss/side'));
  const processes = [new LineProcess('covey', process.execPath, [module], env)];
  const [peer] = findPeers(['debian']);
  if (peer) processes.push(startPython(peer.python, 'loss.py', env));
  for (const one of processes) (await one.ask(settings)) as LossReady;
  return processes.map((one) => ({
    ask: async <A>(request: LossRequest) => (await one.ask(request)) as A,
    close: () => one.close(),
  }));
}

export function table(rows: readonly BenchRow[]): BenchTable {
  const number = (value: number | null) => (value === null ? '–' : value.toPrecision(4));
  return {
    head: ['case', 'ours', 'peer', 'ratio', 'unit'],
    rows: rows.map((one) => [one.case, number(one.ours), number(one.peer), number(one.ratio), one.unit]),
    notes: [
      `memory: held at most beyond inputs and outputs; to be ${MEMORY_RATIO_MIN} times less than the peer's at 32k. time: ratio ≥ 1 means covey is faster`,
      'gradCache: ours is a two-pass step, peer the one-pass step of the same trainer',
    ],
  };
}
