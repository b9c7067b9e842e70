import { concatenated } from '../../common/concatenated.ts';
import type { BlockingCollectives } from '../train/blocking-collectives.ts';
import { LaneGather } from '../train/lane-gather.ts';
import type { EvalGeometry } from './eval-rounds.ts';

/** Rows of held-out data as they come in, round by round, each kind as one growing matrix on the host. */
export class GatheredRows {
  readonly #gather: LaneGather;
  readonly #kinds: readonly { readonly name: string; readonly width: number }[];
  readonly #rounds: Float32Array[][];

  constructor(kinds: readonly { readonly name: string; readonly width: number }[], { lanes, laneBatch }: EvalGeometry) {
    this.#kinds = kinds;
    this.#gather = new LaneGather({
      rows: kinds.map((kind) => ({ ...kind, perSample: 1 })),
      laneCount: lanes,
      laneBatch,
    });
    this.#rounds = kinds.map(() => []);
  }

  /** A held lane's rows of the round in the making: [laneBatch, width]. */
  own(lane: number, name: string): Float32Array {
    return this.#gather.own(lane, this.#kindOf(name));
  }

  has(name: string): boolean {
    return this.#kinds.some((kind) => kind.name === name);
  }

  /** Ends a round: every worker now has all of its rows. */
  endRound(op: number, collectives: BlockingCollectives): void {
    this.#gather.run(op, collectives);
    for (const [kind, rounds] of this.#rounds.entries()) rounds.push(this.#gather.all(kind));
  }

  /** All rows so far, in order. */
  all(name: string): Float32Array {
    return concatenated(this.#rounds[this.#kindOf(name)]!);
  }

  #kindOf(name: string): number {
    return this.#kinds.findIndex((kind) => kind.name === name);
  }
}
