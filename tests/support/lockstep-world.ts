import { assert, CoveyError } from '../../common/errors.ts';
import { type LaneRange, maximalSubtrees, treeAdditions } from '../../worker/collectives/lane-tree.ts';
import type { BlockingCollectives } from '../../worker/train/blocking-collectives.ts';
import { sameBytes } from './collectives-cases.ts';

/**
 * Several workers in one thread. A step blocks in its collectives, so they cannot run side by side; instead each is run in turn, gives
 * what it has, and gives up with ABORTED where another's part is missing. A trainer must be able to compute a given-up step again, to the
 * same bits, and here it has to: what a worker gives twice is compared.
 */
export class LockstepWorld {
  readonly #laneCount: number;
  readonly #ranges: readonly LaneRange[];
  readonly #given = new Map<string, Uint8Array>();

  /** @param ranges lanes of each worker; together they tile [0, laneCount) */
  constructor(laneCount: number, ranges: readonly LaneRange[]) {
    this.#laneCount = laneCount;
    this.#ranges = ranges;
  }

  /** Runs one step of every worker. */
  run<T>(steps: readonly ((collectives: BlockingCollectives) => T)[]): T[] {
    const results = new Map<number, T>();
    for (let turn = 0; results.size < steps.length; turn++) {
      assert(turn < 200, 'every turn brings the workers further');
      steps.forEach((step, rank) => {
        if (results.has(rank)) return;
        try {
          results.set(rank, step(this.#worker(rank)));
        } catch (thrown) {
          if (!CoveyError.is(thrown, 'ABORTED')) throw thrown;
        }
      });
    }
    this.#given.clear();
    return steps.map((_, rank) => results.get(rank)!);
  }

  #worker(rank: number): BlockingCollectives {
    const held = this.#ranges[rank]!;
    const waiting: { readonly op: number; readonly out: Float32Array }[] = [];
    return {
      enter: () => {},
      allGather: (op, laneBytes, out) => {
        const block = (lane: number) => out.subarray(lane * laneBytes, (lane + 1) * laneBytes);
        for (let lane = held.begin; lane < held.end; lane++) this.#give(`gather ${op} lane ${lane}`, block(lane));
        for (let lane = 0; lane < this.#laneCount; lane++) block(lane).set(this.#take(`gather ${op} lane ${lane}`));
      },
      startTreeAllReduce: (op, partials, out) => {
        for (const [i, partial] of partials.entries()) {
          const { begin, end } = maximalSubtrees(this.#laneCount, held)[i]!;
          this.#give(
            `sum ${op} of ${begin}-${end}`,
            new Uint8Array(partial.buffer, partial.byteOffset, partial.byteLength),
          );
        }
        return waiting.push({ op, out }) - 1;
      },
      wait: (ticket) => {
        const { op, out } = waiting[ticket]!;
        const leaves = this.#ranges.flatMap((range) => maximalSubtrees(this.#laneCount, range));
        const sums = leaves.map(
          ({ begin, end }) => new Float32Array(this.#take(`sum ${op} of ${begin}-${end}`).slice().buffer),
        );
        for (const { target, source } of treeAdditions({ begin: 0, end: this.#laneCount }, leaves)) {
          sums[target]!.forEach((value, i) => {
            sums[target]![i] = value + sums[source]![i]!;
          });
        }
        out.set(sums[0]!);
      },
    };
  }

  #give(name: string, bytes: Uint8Array): void {
    const before = this.#given.get(name);
    if (before === undefined) this.#given.set(name, bytes.slice());
    else assert(sameBytes(before, bytes), 'a step that is computed again gives the same bytes', { name });
  }

  #take(name: string): Uint8Array {
    const bytes = this.#given.get(name);
    if (bytes === undefined) throw new CoveyError('ABORTED', `${name} is not there yet`);
    return bytes;
  }
}
