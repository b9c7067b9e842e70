import { type KernelCost, kernelCost } from './kernel-cost.ts';
import { type ModulePath, ROOT_MODULE } from './module-path.ts';
import type { Interval, KernelEvent, Phase, ProfileRecord, ScopeEvent } from './record.ts';

/** A profile's events, each with where it belongs. Only what happened within steps; times still in nanoseconds. */
export interface Attribution {
  readonly steps: readonly ScopeEvent[];
  readonly kernels: readonly PlacedKernel[];
  /** Operators inside kernels, with their own time: without what runs in them in turn. */
  readonly inner: readonly { readonly event: KernelEvent; readonly selfNs: number; readonly kernel: KernelEvent }[];
  readonly scopes: readonly { readonly scope: ScopeEvent; readonly selfNs: number }[];
}

/** A kernel that no other kernel called. */
export interface PlacedKernel {
  readonly event: KernelEvent;
  readonly cost: KernelCost;
  readonly module: ModulePath;
  readonly phase: Phase;
}

interface Entry extends Interval {
  readonly scope?: ScopeEvent;
  readonly kernel?: KernelEvent;
  childNs: number;
}

/** Puts scopes and kernels of one thread into each other by time; they nest, being calls. */
export function attribute(record: ProfileRecord): Attribution {
  const steps: ScopeEvent[] = [];
  const kernels: PlacedKernel[] = [];
  const inner: { entry: Entry; kernel: KernelEvent }[] = [];
  const scopes: Entry[] = [];
  const open: Entry[] = [];
  for (const entry of inOrder(record)) {
    while (open.length > 0 && open.at(-1)!.endedNs <= entry.startedNs) open.pop();
    const parent = open.at(-1);
    open.push(entry);
    if (entry.scope?.step !== undefined) steps.push(entry.scope);
    if (!open.some(({ scope }) => scope?.step !== undefined)) continue;
    if (entry.scope) scopes.push(entry);
    if (parent && (entry.kernel === undefined) === (parent.kernel === undefined))
      parent.childNs += entry.endedNs - entry.startedNs;
    if (!entry.kernel) continue;
    const outermost = open.find(({ kernel }) => kernel !== undefined)!;
    if (outermost !== entry) inner.push({ entry, kernel: outermost.kernel! });
    else {
      const { module = ROOT_MODULE, phase = 'other' } = parent?.scope ?? {};
      kernels.push({ event: entry.kernel, cost: kernelCost(entry.kernel), module, phase });
    }
  }
  const selfNs = ({ startedNs, endedNs, childNs }: Entry) => Math.max(0, endedNs - startedNs - childNs);
  return {
    steps,
    kernels,
    inner: inner.map(({ entry, kernel }) => ({ event: entry.kernel!, selfNs: selfNs(entry), kernel })),
    scopes: scopes.map((entry) => ({ scope: entry.scope!, selfNs: selfNs(entry) })),
  };
}

/** By start; of those that start together the outer one first. */
function inOrder({ scopes, kernels }: ProfileRecord): Entry[] {
  const entries: Entry[] = [
    ...scopes.map((scope) => ({ startedNs: scope.startedNs, endedNs: scope.endedNs, scope, childNs: 0 })),
    ...kernels.map((kernel) => ({ startedNs: kernel.startedNs, endedNs: kernel.endedNs, kernel, childNs: 0 })),
  ];
  return entries.sort((a, b) => a.startedNs - b.startedNs || b.endedNs - a.endedNs);
}
