import { performance } from 'node:perf_hooks';
import { describe, expect, it } from 'vitest';
import { RandomStream } from '../../common/random.ts';
import { maximalSubtrees } from '../../worker/collectives/lane-tree.ts';
import { planReduction, TreeReducer } from '../../worker/collectives/reduce-kernel.ts';
import { createAddingSlots } from '../../worker/collectives/wasm-add.ts';
import { evenGroup, lanePartials, laneVectors, serialTreeSum } from '../support/collectives-cases.ts';

describe('the reduction kernel', () => {
  it('adds with the bits of a scalar loop, whatever the length', () => {
    const random = new RandomStream('wasm-add');
    for (const floats of [1, 3, 4, 5, 1023, 4096]) {
      const slots = createAddingSlots(2, 4096);
      const a = Float32Array.from({ length: floats }, () => random.normal());
      const b = Float32Array.from({ length: floats }, () => random.normal() * 1e-3);
      slots.slot(0).set(a);
      slots.slot(1).set(b);
      slots.add(0, 1, floats);
      expect([...slots.slot(0).subarray(0, floats)]).toEqual([...a.map((value, i) => value + b[i]!)]);
    }
  });

  it('sums partials of any cut of the lanes to the bits of the serial tree', () => {
    const vectors = laneVectors(7, 10_001, 'kernel');
    const expected = serialTreeSum(vectors);
    for (const world of [1, 2, 3, 4, 7]) {
      const group = evenGroup(world, 7);
      const partials = group.members.flatMap((member) => lanePartials(vectors, member));
      const out = new Float32Array(10_001);
      new TreeReducer(planReduction(group)).sum(
        partials,
        partials.map(() => 0),
        out,
        0,
        out.length,
      );
      expect(Buffer.from(out.buffer).equals(Buffer.from(expected.buffer))).toBe(true);
    }
  });

  it('plans one leaf per maximal subtree of every rank', () => {
    const plan = planReduction(evenGroup(3, 8));
    expect(plan.leafCount).toEqual(
      evenGroup(3, 8).members.map(
        ({ laneBegin, laneEnd }) => maximalSubtrees(8, { begin: laneBegin, end: laneEnd }).length,
      ),
    );
    expect(plan.additions).toHaveLength(plan.leaves.length - 1);
  });

  it('is faster than a scalar loop', () => {
    const group = evenGroup(2, 2);
    const floats = 1 << 20;
    const leaves = [0, 1].map(() => new Float32Array(new SharedArrayBuffer(4 * floats)));
    const out = new Float32Array(new SharedArrayBuffer(4 * floats));
    const reducer = new TreeReducer(planReduction(group));
    const scalar = () => {
      for (let i = 0; i < floats; i++) out[i] = leaves[0]![i]! + leaves[1]![i]!;
    };
    const median = (work: () => void) => {
      const times = Array.from({ length: 9 }, () => {
        const start = performance.now();
        work();
        return performance.now() - start;
      });
      return times.sort((x, y) => x - y)[4]!;
    };
    const scalarMs = median(scalar);
    const kernelMs = median(() => reducer.sum(leaves, [0, 0], out, 0, floats));
    console.log(`4 MiB sum: scalar ${scalarMs.toFixed(2)} ms, kernel ${kernelMs.toFixed(2)} ms`);
    expect(kernelMs).toBeLessThan(scalarMs);
  });
});
