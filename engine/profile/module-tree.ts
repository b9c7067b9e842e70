import type { Attribution } from './attribution.ts';
import { type ModulePath, ROOT_MODULE } from './module-path.ts';
import type { Phase } from './record.ts';

/** A module's share of a step, with everything inside it. Milliseconds and operations per step, means over the profiled steps. */
export interface ModuleNode {
  readonly name: string;
  readonly path: string;
  readonly forwardMs: number;
  readonly backwardMs: number;
  /** Neither recorded nor swept: loss, optimiser, exchange, copies. */
  readonly otherMs: number;
  readonly totalMs: number;
  /** Of `totalMs`, the part inside kernels; the rest is JavaScript. */
  readonly kernelMs: number;
  /** Of `totalMs`, the part in none of `children`. */
  readonly selfMs: number;
  readonly flops: number;
  /** In order of first appearance. */
  readonly children: readonly ModuleNode[];
}

interface Sums {
  readonly ns: Record<Phase, number>;
  kernelNs: number;
  flops: number;
}

/** The whole step as a tree; the root's `selfMs` is what no module claims. */
export function moduleTree({ steps, scopes, kernels }: Attribution): ModuleNode {
  const own = new Map<ModulePath, Sums>();
  const children = new Map<ModulePath, ModulePath[]>();
  const sumsOf = (module: ModulePath): Sums => {
    const known = own.get(module);
    if (known !== undefined) return known;
    const sums: Sums = { ns: { forward: 0, backward: 0, other: 0 }, kernelNs: 0, flops: 0 };
    own.set(module, sums);
    if (module.parent !== undefined) {
      sumsOf(module.parent);
      children.set(module.parent, [...(children.get(module.parent) ?? []), module]);
    }
    return sums;
  };
  sumsOf(ROOT_MODULE);
  for (const { scope, selfNs } of scopes) sumsOf(scope.module).ns[scope.phase] += selfNs;
  for (const { event, cost, module } of kernels) {
    const sums = sumsOf(module);
    sums.kernelNs += event.endedNs - event.startedNs;
    sums.flops += cost.flops;
  }
  const perStepMs = (ns: number) => ns / 1e6 / steps.length;
  const nodeOf = (module: ModulePath): ModuleNode => {
    const inner = (children.get(module) ?? []).map(nodeOf);
    const { ns, kernelNs, flops } = sumsOf(module);
    const sum = (mine: number, read: (node: ModuleNode) => number) =>
      inner.reduce((total, node) => total + read(node), mine);
    const selfMs = perStepMs(ns.forward + ns.backward + ns.other);
    return {
      name: module.name,
      path: module.toString(),
      forwardMs: sum(perStepMs(ns.forward), (node) => node.forwardMs),
      backwardMs: sum(perStepMs(ns.backward), (node) => node.backwardMs),
      otherMs: sum(perStepMs(ns.other), (node) => node.otherMs),
      totalMs: sum(selfMs, (node) => node.totalMs),
      kernelMs: sum(perStepMs(kernelNs), (node) => node.kernelMs),
      selfMs,
      flops: sum(flops / steps.length, (node) => node.flops),
      children: inner,
    };
  };
  return nodeOf(ROOT_MODULE);
}
