import type { LaneStatistics } from './objective.ts';

/** One part's, and where each of its entries lies among those of all. */
interface Share {
  readonly statistics: LaneStatistics;
  readonly own: Float32Array;
  readonly places: readonly { readonly begin: number; readonly offset: number; readonly length: number }[];
}

/**
 * The statistics of models that share a tower. What several meet under one name is one entry: the mean of what they met, as it is the mean
 * where one model takes several forwards of a lane. It moves the running values once per update, not once for each part: models that were
 * made with shared variables leave these to the model that made them.
 */
export class JointStatistics implements LaneStatistics {
  readonly length: number;
  readonly entries: LaneStatistics['entries'];
  readonly #shares: readonly Share[];
  /** How many parts meet each float. */
  readonly #meetings: Float32Array;

  constructor(parts: readonly LaneStatistics[]) {
    const offsets = new Map<string, number>();
    const entries: { name: string; length: number }[] = [];
    let total = 0;
    this.#shares = parts.map((statistics) => {
      let begin = 0;
      const places = statistics.entries.map(({ name, length }) => {
        let offset = offsets.get(name);
        if (offset === undefined) {
          offset = total;
          offsets.set(name, offset);
          entries.push({ name, length });
          total += length;
        }
        begin += length;
        return { begin: begin - length, offset, length };
      });
      return { statistics, own: new Float32Array(statistics.length), places };
    });
    this.length = total;
    this.entries = entries;
    this.#meetings = new Float32Array(total);
    for (const { places } of this.#shares) {
      for (const { offset, length } of places) {
        for (let i = offset; i < offset + length; i++) this.#meetings[i]!++;
      }
    }
  }

  begin(): void {
    for (const { statistics } of this.#shares) statistics.begin();
  }

  read(out: Float32Array): void {
    out.fill(0);
    for (const { statistics, own, places } of this.#shares) {
      statistics.read(own);
      for (const { begin, offset, length } of places) {
        for (let i = 0; i < length; i++) out[offset + i]! += own[begin + i]!;
      }
    }
    for (const [i, meetings] of this.#meetings.entries()) out[i]! /= meetings;
  }

  apply(mean: Float32Array): void {
    for (const { statistics, own, places } of this.#shares) {
      for (const { begin, offset, length } of places) own.set(mean.subarray(offset, offset + length), begin);
      statistics.apply(own);
    }
  }
}
