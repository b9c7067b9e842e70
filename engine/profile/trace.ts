import { kernelCost } from './kernel-cost.ts';
import type { KernelEvent, ProfileRecord, ScopeEvent, TensorShape } from './record.ts';

/**
 * Chrome's trace-event format, JSON object form ("Trace Event Format", Google), which Perfetto and chrome://tracing open: complete events
 * (X) for steps, modules and kernels, a counter (C) for memory, metadata (M) for names. Times in microseconds.
 */
export interface ChromeTrace {
  readonly displayTimeUnit: 'ms';
  readonly otherData: Readonly<Record<string, string>>;
  readonly traceEvents: readonly TraceEvent[];
}

export interface TraceEvent {
  readonly ph: 'X' | 'C' | 'M';
  readonly name: string;
  readonly cat?: string;
  readonly pid: number;
  readonly tid: number;
  readonly ts?: number;
  readonly dur?: number;
  readonly args?: Readonly<Record<string, unknown>>;
}

const PID = 1;
const TID = 1;

/** A record as a trace: modules and the kernels inside them on one track, memory on another. `about` is shown as the trace's information. */
export function chromeTrace(record: ProfileRecord, about: Readonly<Record<string, string>> = {}): ChromeTrace {
  const intervals = [...record.scopes.map(scopeEvent), ...record.kernels.map(kernelEvent)];
  const memory = record.memory.map(
    ({ timeNs, bytes }): TraceEvent => ({
      ph: 'C',
      name: 'memory',
      pid: PID,
      tid: TID,
      ts: microseconds(timeNs),
      args: { bytes },
    }),
  );
  return {
    displayTimeUnit: 'ms',
    otherData: about,
    traceEvents: [
      { ph: 'M', name: 'process_name', pid: PID, tid: TID, args: { name: 'covey profile' } },
      { ph: 'M', name: 'thread_name', pid: PID, tid: TID, args: { name: 'compute' } },
      // Of events that start together the longer one contains the other.
      ...[...intervals, ...memory].sort((a, b) => a.ts! - b.ts! || (b.dur ?? 0) - (a.dur ?? 0)),
    ],
  };
}

function scopeEvent({ module, phase, step, startedNs, endedNs, bytesBefore, bytesAfter }: ScopeEvent): TraceEvent {
  const isStep = step !== undefined;
  return {
    ph: 'X',
    name: isStep ? `step ${step}` : phase === 'backward' ? `${module.name} (backward)` : module.name,
    cat: isStep ? 'step' : 'module',
    pid: PID,
    tid: TID,
    ...interval(startedNs, endedNs),
    args: { ...(isStep ? {} : { module: module.toString(), phase }), bytesBefore, bytesAfter },
  };
}

function kernelEvent(event: KernelEvent): TraceEvent {
  const { flops, bytes } = kernelCost(event);
  const { inputs, outputs, aliases, startedNs, endedNs } = event;
  const seconds = (endedNs - startedNs) / 1e9;
  return {
    ph: 'X',
    name: event.name,
    cat: 'kernel',
    pid: PID,
    tid: TID,
    ...interval(startedNs, endedNs),
    args: {
      ...(inputs.length > 0 ? { inputs: inputs.map(shapeText) } : {}),
      ...(outputs.length > 0 ? { outputs: outputs.map(shapeText) } : {}),
      ...(aliases.length > 0 ? { views: aliases.map(shapeText) } : {}),
      ...(flops > 0 ? { flops, gflopsPerSecond: rounded(flops / seconds / 1e9) } : {}),
      ...(bytes > 0 ? { bytes, gigabytesPerSecond: rounded(bytes / seconds / 1e9) } : {}),
    },
  };
}

/** `bfloat16[64, 65, 256]` */
export function shapeText({ type, shape }: TensorShape): string {
  return `${type}[${shape.join(', ')}]`;
}

/** Whole nanoseconds, so that an inner interval cannot end up outside its outer one by rounding. */
function interval(startedNs: number, endedNs: number): { ts: number; dur: number } {
  const begin = Math.round(startedNs);
  return { ts: begin / 1e3, dur: (Math.round(endedNs) - begin) / 1e3 };
}

function microseconds(ns: number): number {
  return Math.round(ns) / 1e3;
}

function rounded(value: number): number {
  return Number.isFinite(value) ? Number(value.toPrecision(4)) : 0;
}
