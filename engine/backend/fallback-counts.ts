/** What the JavaScript fallback has cost this thread, by kernel. A hot path in here wants a kernel of its own. */

export interface FallbackUse {
  readonly kernel: string;
  readonly calls: number;
  /** Wall time, copies included. */
  readonly milliseconds: number;
}

type Listener = (use: FallbackUse) => void;

/** A kernel is hot from its hundredth call on, or once it has cost a second: either shows in a training step. */
const HOT_CALLS = 100;
const HOT_MS = 1000;

const uses = new Map<string, FallbackUse>();
const hot = new Set<string>();
const listeners = new Set<Listener>();

/** Each kernel that ran in JavaScript since the thread began. */
export function fallbackUses(): readonly FallbackUse[] {
  return [...uses.values()];
}

/** Calls `listener` once for each kernel that becomes hot, and at once for those that are. Returns what ends it. */
export function onHotFallback(listener: Listener): () => void {
  for (const kernel of hot) listener(uses.get(kernel)!);
  listeners.add(listener);
  return () => void listeners.delete(listener);
}

export function countFallback(kernel: string, milliseconds: number): void {
  const before = uses.get(kernel);
  const use = {
    kernel,
    calls: (before?.calls ?? 0) + 1,
    milliseconds: (before?.milliseconds ?? 0) + milliseconds,
  };
  uses.set(kernel, use);
  if (hot.has(kernel) || (use.calls < HOT_CALLS && use.milliseconds < HOT_MS)) return;
  hot.add(kernel);
  for (const listener of listeners) listener(use);
}
