/** An event of Chrome's trace format; times in microseconds. */
export interface TraceEvent {
  readonly ph: string;
  readonly cat?: string;
  readonly ts?: number;
  readonly dur?: number;
}

/** What Kineto calls work on the card. */
const ON_CARD = new Set(['kernel', 'gpu_memcpy', 'gpu_memset']);

/** The share of the time between the card's first and last work in which it worked at all; null where the trace has no such work. */
export function busyShare(events: readonly TraceEvent[]): number | null {
  const spans = events
    .filter(({ ph, cat }) => ph === 'X' && cat !== undefined && ON_CARD.has(cat))
    .map(({ ts = 0, dur = 0 }) => [ts, ts + dur] as const)
    .sort(([a], [b]) => a - b);
  if (spans.length === 0) return null;
  let busy = 0;
  let until = spans[0]![0];
  for (const [begin, end] of spans) {
    busy += Math.max(0, end - Math.max(begin, until));
    until = Math.max(until, end);
  }
  return busy / (until - spans[0]![0]);
}
