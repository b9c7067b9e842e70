import { type BenchTable, median } from '../support/rows.ts';
import type { Precision, Timings } from './protocol.ts';

/** One side's figures in one row. Null: not measured in rows of this kind. */
export interface SideResult {
  readonly name: string;
  readonly version: string;
  /** Of the wall time (ms), or of the rate where the row's unit says so. */
  readonly median: number;
  readonly min: number;
  /** Median CPU time of the whole process, ms. */
  readonly cpu: number | null;
  /** VmHWM of the process, MiB, and what it was before anything was computed. */
  readonly peakRss: number | null;
  readonly baseRss: number | null;
  /** GEMM 1024³ in this process, GFLOP/s. */
  readonly gemm: number | null;
  /** FLOPs per second of the median step over the fastest GEMM that any side reached in this row. */
  readonly shareOfPeak: number | null;
}

export interface EngineRow {
  readonly case: string;
  readonly precision: Precision;
  readonly threads: number;
  readonly unit: 'ms' | 'samples/s';
  readonly ours: SideResult;
  readonly peers: readonly SideResult[];
  /** The fastest peer's median over ours: > 1, covey is faster. */
  readonly ratio: number | null;
  /** The same of the CPU times. */
  readonly cpuRatio: number | null;
  /** Our peak of memory over the smallest peer's: < 1, covey needs less. */
  readonly memoryRatio: number | null;
  readonly verdict: Verdict;
  /** What a reader has to know about this row. */
  readonly note?: string;
}

/** `aim`: the aim is met too. `short`: the must is not met. `none`: there was nothing to compare with. */
export type Verdict = 'aim' | 'must' | 'short' | 'none';

/** What the issue asks of every row. */
const MUST = { ratio: 1, memoryRatio: 1.05 } as const;
const AIM = { ratio: 1.2, shareOfPeak: 0.8 } as const;

export function sideResult(
  side: { readonly name: string; readonly version: string },
  { wallMs, cpuMs }: Timings,
  more: Partial<Pick<SideResult, 'peakRss' | 'baseRss' | 'gemm' | 'shareOfPeak'>> = {},
): SideResult {
  return {
    name: side.name,
    version: side.version,
    median: median(wallMs),
    min: Math.min(...wallMs),
    cpu: median(cpuMs),
    peakRss: null,
    baseRss: null,
    gemm: null,
    shareOfPeak: null,
    ...more,
  };
}

/** Compares the sides of a row, covey first. `shareCounts`: the aim includes the share of the GEMM peak. */
export function engineRow(
  row: Pick<EngineRow, 'case' | 'precision' | 'threads'> & { readonly note?: string },
  [ours, ...peers]: readonly SideResult[],
  shareCounts = false,
): EngineRow {
  const best = (value: (side: SideResult) => number | null) =>
    peers.length === 0 ? null : Math.min(...peers.map((peer) => value(peer) ?? Number.POSITIVE_INFINITY));
  const over = (peer: number | null, own: number | null) =>
    peer === null || own === null || !Number.isFinite(peer) ? null : peer / own;
  const ratio = over(
    best((peer) => peer.median),
    ours!.median,
  );
  const memory = over(
    best((peer) => peer.peakRss),
    ours!.peakRss,
  );
  const memoryRatio = memory === null ? null : 1 / memory;
  const share = shareCounts ? ours!.shareOfPeak : null;
  return {
    ...row,
    unit: 'ms',
    ours: ours!,
    peers,
    ratio,
    cpuRatio: over(
      best((peer) => peer.cpu),
      ours!.cpu,
    ),
    memoryRatio,
    verdict: verdict(ratio, memoryRatio, share),
  };
}

export function verdict(ratio: number | null, memoryRatio: number | null, shareOfPeak: number | null): Verdict {
  if (ratio === null) return 'none';
  if (ratio < MUST.ratio || (memoryRatio !== null && memoryRatio > MUST.memoryRatio)) return 'short';
  return ratio >= AIM.ratio && (shareOfPeak === null || shareOfPeak >= AIM.shareOfPeak) ? 'aim' : 'must';
}

const shown = (value: number | null, digits = 4) => (value === null ? '–' : String(Number(value.toPrecision(digits))));
const percent = (value: number | null) => (value === null ? '–' : `${Math.round(100 * value)} %`);

/** One row as a line, for those who watch. */
export function rowLine({ case: label, precision, threads, unit, ours, peers, ratio, verdict }: EngineRow): string {
  const sides = [ours, ...peers].map((side) => `${side.name} ${shown(side.median)}`).join(', ');
  return `${label}, ${precision} ×${threads}: ${sides} ${unit}; ratio ${shown(ratio, 3)}: ${verdict}`;
}

/** For people: one line per row; columns that no row fills are left out. */
export function engineTable(rows: readonly EngineRow[]): BenchTable {
  const peerNames = [...new Set(rows.flatMap((row) => row.peers.map((peer) => peer.name)))];
  const peer = (row: EngineRow, name: string) => row.peers.find((one) => one.name === name);
  const timed = (side: SideResult | undefined) => (side ? `${shown(side.median)} (${shown(side.min)})` : '–');
  const columns: [head: string, cell: (row: EngineRow) => string][] = [
    ['case', (row) => row.case],
    ['', (row) => `${row.precision} ×${row.threads}`],
    ['covey', (row) => timed(row.ours)],
    ...peerNames.map((name): (typeof columns)[number] => [name, (row) => timed(peer(row, name))]),
    ['ratio', (row) => shown(row.ratio, 3)],
    ['CPU ratio', (row) => shown(row.cpuRatio, 3)],
    ['of peak', (row) => percent(row.ours.shareOfPeak)],
    ['peak MiB', (row) => shown(row.ours.peakRss)],
    ...peerNames.map((name): (typeof columns)[number] => [
      `${name} MiB`,
      (row) => shown(peer(row, name)?.peakRss ?? null),
    ]),
    ['memory', (row) => shown(row.memoryRatio, 3)],
    ['verdict', (row) => row.verdict],
  ];
  const filled = columns.filter(([, cell]) => rows.some((row) => cell(row) !== '–'));
  return {
    head: filled.map(([head]) => head),
    rows: rows.map((row) => filled.map(([, cell]) => cell(row))),
    notes: [
      'median (min) in ms, or samples/s where the row says so; ratio: faster peer / covey; memory: covey / smaller peer',
      ...new Set(rows.flatMap((row) => (row.note ? [`${row.case}: ${row.note}`] : []))),
    ],
  };
}
