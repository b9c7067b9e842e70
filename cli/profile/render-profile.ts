import type { ModuleNode } from '../../engine/profile/module-tree.ts';
import { formatBytes } from '../format.ts';
import type { Cell, Output } from '../output.ts';
import { memoryChart } from './memory-chart.ts';
import type { ProfileReport } from './run-profile.ts';

export interface RenderOptions {
  /** Rows of the kernel table. */
  readonly top: number;
  /** Levels of the module tree. */
  readonly depth: number;
}

/** The whole report for people. */
export function renderProfile(report: ProfileReport, output: Output, { top, depth }: RenderOptions): string {
  const { bold, dim } = output.colors;
  const sections = [
    summaryLines(report),
    [bold('Kernels'), output.table(KERNEL_HEAD, kernelRows(report, top))],
    ...(report.innerOperators.length > 0
      ? [[bold('Operators inside covey’s kernels (own time)'), output.table(INNER_HEAD, innerRows(report, top))]]
      : []),
    [bold('Modules'), output.table(MODULE_HEAD, moduleRows(report, depth))],
    [bold('Memory over the last step'), ...memoryChart(report.memory), ...memoryLines(report)],
  ];
  const kernels = report.kernels.length;
  const rest = kernels > top ? [dim(`${kernels - top} more kernels: --top ${kernels} shows all`)] : [];
  sections[1]!.push(...rest);
  return sections.map((lines) => lines.join('\n')).join('\n\n');
}

function summaryLines(report: ProfileReport): string[] {
  const { stepMs, peaks, modelFlops } = report;
  const { globalBatch, lanes, captionTokens } = report;
  const captionText = captionTokens > 0 ? `captions of ${captionTokens} tokens, ` : '';
  const laneText = lanes === 1 ? 'one lane' : `${lanes} lanes`;
  return [
    `${report.target}: batch ${globalBatch} in ${laneText}, ${captionText}${report.precision}; ${report.description}`,
    `step ${ms(stepMs.median)} ms (${ms(stepMs.min)} to ${ms(stepMs.max)} over ${report.steps}; without the profile ${ms(report.unprofiledStepMs)}), ` +
      `${samplesPerSecond(report)} samples/s`,
    `${giga(modelFlops.total)} GFLOP of products a step: ${giga(report.flopsPerSecond)} GFLOP/s, ${percent(report.gemmShare)} of the GEMM peak ` +
      `(${giga(peaks.gemmFlops)} GFLOP/s); a pass over memory reaches ${giga(peaks.memoryBytes)} GB/s`,
    ...(report.dropped > 0 ? [`the record was full: ${report.dropped} calls are missing; profile fewer steps`] : []),
  ];
}

const KERNEL_HEAD = ['kernel', 'calls', 'ms', 'share', 'mean µs', 'GFLOP/s', 'of peak', 'GB/s', 'limit', 'reached'];

function kernelRows({ kernels, outsideKernelsMs, kernelMs }: ProfileReport, top: number): Cell[][] {
  const rows = kernels.slice(0, top).map((row): Cell[] => [
    row.kernel,
    count(row.callsPerStep),
    ms(row.msPerStep),
    percent(row.share),
    row.meanUs.toFixed(1),
    row.flopsPerSecond === null ? '' : giga(row.flopsPerSecond),
    row.gemmShare === null ? '' : percent(row.gemmShare),
    // Where arithmetic is the limit the bytes say nothing.
    row.bytesPerSecond === null || row.bound === 'gemm' ? '' : giga(row.bytesPerSecond),
    row.bound ?? '',
    row.boundShare === null ? '' : percent(row.boundShare),
  ]);
  const hidden = kernels.slice(top).reduce((sum, row) => sum + row.msPerStep, 0);
  const share = (part: number) => percent(part / (kernelMs + outsideKernelsMs));
  const blanks = ['', '', '', '', '', ''];
  if (hidden > 0) rows.push(['(other kernels)', '', ms(hidden), share(hidden), ...blanks]);
  rows.push(['(outside kernels)', '', ms(outsideKernelsMs), share(outsideKernelsMs), ...blanks]);
  return rows;
}

const INNER_HEAD = ['operator', 'inside', 'calls', 'ms', 'share'];

function innerRows({ innerOperators }: ProfileReport, top: number): Cell[][] {
  return innerOperators
    .slice(0, top)
    .map((row) => [row.operator, row.kernel, count(row.callsPerStep), ms(row.msPerStep), percent(row.share)]);
}

const MODULE_HEAD = [
  'module',
  'forward ms',
  'backward ms',
  'other ms',
  'total ms',
  'share',
  'in kernels',
  'GFLOP/s',
  'of peak',
];

function moduleRows({ modules, peaks }: ProfileReport, depth: number): Cell[][] {
  const rows: Cell[][] = [];
  const timeOf = (value: number) => (value > 0 ? ms(value) : '');
  const add = (node: ModuleNode, level: number): void => {
    const flopsPerSecond = node.totalMs > 0 ? node.flops / (node.totalMs / 1000) : 0;
    rows.push([
      `${'  '.repeat(level)}${level === 0 ? 'step' : node.name}`,
      timeOf(node.forwardMs),
      timeOf(node.backwardMs),
      timeOf(node.otherMs),
      ms(node.totalMs),
      percent(node.totalMs / modules.totalMs),
      percent(node.totalMs > 0 ? node.kernelMs / node.totalMs : 0),
      node.flops > 0 ? giga(flopsPerSecond) : '',
      node.flops > 0 ? percent(flopsPerSecond / peaks.gemmFlops) : '',
    ]);
    if (level >= depth) return;
    for (const child of node.children) add(child, level + 1);
    if (level === 0)
      rows.push(['  (no module)', '', '', '', ms(node.selfMs), percent(node.selfMs / modules.totalMs), '', '', '']);
  };
  add(modules, 0);
  return rows;
}

function memoryLines({ memory }: ProfileReport): string[] {
  const where = `${memory.peakModule || 'no module'} (${memory.peakPhase})`;
  return [
    `peak ${formatBytes(memory.peakBytes)} in ${where}; ${formatBytes(memory.startBytes)} at the start, ${formatBytes(memory.endBytes)} at the end` +
      `${memory.isExact ? '' : '; tensors as tfjs counts them, at module boundaries'}`,
    'f forward, b backward, · neither',
  ];
}

function samplesPerSecond({ globalBatch, stepMs }: ProfileReport): string {
  return (globalBatch / (stepMs.median / 1000)).toPrecision(4);
}

const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
const giga = (amount: number) => (amount / 1e9).toPrecision(3);
const ms = (value: number) => (value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2));
const count = (calls: number) => (Number.isInteger(calls) ? String(calls) : calls.toFixed(1));
