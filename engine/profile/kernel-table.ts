import type { Attribution } from './attribution.ts';

/** What the machine can do, measured. */
export interface MachinePeaks {
  /** Floating-point operations per second of a large matrix product in the run's precision, on the engine's threads. */
  readonly gemmFlops: number;
  /** Bytes per second, read and written, of a pass over arrays that fit no cache. */
  readonly memoryBytes: number;
}

/** One kernel's calls in a step: totals are means over the profiled steps. */
export interface KernelRow {
  readonly kernel: string;
  readonly callsPerStep: number;
  readonly msPerStep: number;
  /** Of the step's time. */
  readonly share: number;
  readonly meanUs: number;
  readonly flopsPerStep: number;
  readonly bytesPerStep: number;
  /** Null where the kernel has no products. */
  readonly flopsPerSecond: number | null;
  readonly gemmShare: number | null;
  /** Of the bytes that must at least move; null where none do. */
  readonly bytesPerSecond: number | null;
  /** What bounds it at best: arithmetic or memory, whichever needs more time at the machine's peak (Williams et al. 2009, roofline). */
  readonly bound: 'gemm' | 'memory' | null;
  /** Time at the machine's peak over time taken: at 1 there is nothing left to gain but doing less. */
  readonly boundShare: number | null;
}

/** Time per kernel, the longest first. */
export function kernelTable({ steps, kernels }: Attribution, peaks: MachinePeaks): KernelRow[] {
  const sums = new Map<string, { calls: number; ns: number; flops: number; bytes: number }>();
  for (const { event, cost } of kernels) {
    const sum = sums.get(event.name) ?? { calls: 0, ns: 0, flops: 0, bytes: 0 };
    sum.calls++;
    sum.ns += event.endedNs - event.startedNs;
    sum.flops += cost.flops;
    sum.bytes += cost.bytes;
    sums.set(event.name, sum);
  }
  const stepNs = totalNs(steps);
  const rows = [...sums].map(([kernel, { calls, ns, flops, bytes }]): KernelRow => {
    const seconds = ns / 1e9;
    const rate = (amount: number) => (amount > 0 && seconds > 0 ? amount / seconds : null);
    const flopsPerSecond = rate(flops);
    const gemmSeconds = flops / peaks.gemmFlops;
    const memorySeconds = bytes / peaks.memoryBytes;
    const bound = flops === 0 && bytes === 0 ? null : gemmSeconds >= memorySeconds ? 'gemm' : 'memory';
    return {
      kernel,
      callsPerStep: calls / steps.length,
      msPerStep: ns / 1e6 / steps.length,
      share: ns / stepNs,
      meanUs: ns / 1e3 / calls,
      flopsPerStep: flops / steps.length,
      bytesPerStep: bytes / steps.length,
      flopsPerSecond,
      gemmShare: flopsPerSecond === null ? null : flopsPerSecond / peaks.gemmFlops,
      bytesPerSecond: rate(bytes),
      bound,
      boundShare: bound === null || seconds === 0 ? null : Math.max(gemmSeconds, memorySeconds) / seconds,
    };
  });
  return rows.sort((a, b) => b.msPerStep - a.msPerStep);
}

/** An ATen operator inside covey's kernels. */
export interface InnerRow {
  readonly operator: string;
  /** The kernel it ran in. */
  readonly kernel: string;
  readonly callsPerStep: number;
  readonly msPerStep: number;
  readonly share: number;
}

/** Own time of the operators inside kernels, the longest first. Empty unless they were recorded. */
export function innerTable({ steps, inner }: Attribution): InnerRow[] {
  const sums = new Map<string, { operator: string; kernel: string; calls: number; ns: number }>();
  for (const { event, selfNs, kernel } of inner) {
    const key = `${kernel.name} ${event.name}`;
    const sum = sums.get(key) ?? { operator: event.name, kernel: kernel.name, calls: 0, ns: 0 };
    sum.calls++;
    sum.ns += selfNs;
    sums.set(key, sum);
  }
  const stepNs = totalNs(steps);
  return [...sums.values()]
    .map(({ operator, kernel, calls, ns }) => ({
      operator,
      kernel,
      callsPerStep: calls / steps.length,
      msPerStep: ns / 1e6 / steps.length,
      share: ns / stepNs,
    }))
    .sort((a, b) => b.msPerStep - a.msPerStep);
}

/** Time of all intervals together, in nanoseconds. */
export function totalNs(intervals: readonly { readonly startedNs: number; readonly endedNs: number }[]): number {
  return intervals.reduce((sum, { startedNs, endedNs }) => sum + endedNs - startedNs, 0);
}
