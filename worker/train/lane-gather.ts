import type { RowsSpec } from '../objectives/objective.ts';
import type { BlockingCollectives } from './blocking-collectives.ts';

export interface LaneGatherOptions {
  readonly rows: readonly RowsSpec[];
  readonly laneCount: number;
  readonly laneBatch: number;
}

/**
 * One all-gather of several kinds of rows. In the buffer that travels each lane has one block, its kinds one behind another; a held
 * lane's block is written in place, and `all` takes one kind out of every block, in lane order.
 */
export class LaneGather {
  readonly #options: LaneGatherOptions;
  /** Floats of one lane, by kind. */
  readonly #lengths: readonly number[];
  /** Where a kind begins in a lane's block. */
  readonly #offsets: readonly number[];
  readonly #laneFloats: number;
  readonly #buffer: Float32Array;

  constructor(options: LaneGatherOptions) {
    this.#options = options;
    this.#lengths = options.rows.map(({ perSample, width }) => options.laneBatch * perSample * width);
    let laneFloats = 0;
    this.#offsets = this.#lengths.map((length) => {
      laneFloats += length;
      return laneFloats - length;
    });
    this.#laneFloats = laneFloats;
    this.#buffer = sharedFloats(options.laneCount * laneFloats);
  }

  /** Whether there is nothing to gather: `run` then does nothing. */
  get isEmpty(): boolean {
    return this.#laneFloats === 0;
  }

  /** A lane's own rows of one kind: [laneBatch × perSample, width]. */
  own(lane: number, kind: number): Float32Array {
    const begin = lane * this.#laneFloats + this.#offsets[kind]!;
    return this.#buffer.subarray(begin, begin + this.#lengths[kind]!);
  }

  /** Blocks until every lane's block is here. Throws what the collectives throw. */
  run(op: number, collectives: BlockingCollectives): void {
    if (this.isEmpty) return;
    collectives.allGather(op, 4 * this.#laneFloats, new Uint8Array(this.#buffer.buffer));
  }

  /** A copy of all lanes' rows of one kind, in lane order. */
  all(kind: number): Float32Array {
    const length = this.#lengths[kind]!;
    const { laneCount } = this.#options;
    const out = new Float32Array(laneCount * length);
    for (let lane = 0; lane < laneCount; lane++) out.set(this.own(lane, kind), lane * length);
    return out;
  }
}

export function sharedFloats(count: number): Float32Array {
  return new Float32Array(new SharedArrayBuffer(4 * count));
}
