import { assert, CoveyError } from '../../common/errors.ts';
import { type Engine, rootScope, type Tensor } from '../../engine/index.ts';
import type { BlockingCollectives } from './blocking-collectives.ts';
import type { FlatLayout } from './flat-layout.ts';
import type { LaneSchedule, LaneStep } from './lane-schedule.ts';

/** What the lanes of one step share. */
export interface GradientSinkOptions {
  readonly engine: Engine;
  readonly layout: FlatLayout;
  readonly schedule: LaneSchedule;
  /** Partial sums, as many as the schedule needs. */
  readonly buffers: readonly Float32Array[];
  /** Takes the sums over all lanes. */
  readonly reduced: Float32Array;
  readonly collectives: BlockingCollectives;
  /** Operation number of the first bucket's reduction. */
  readonly opFirstBucket: number;
  /** Takes a ticket for every reduction that was started. */
  readonly tickets: number[];
  /**
   * Where a lane that comes in chunks is summed by itself, as long as the layout; absent: lanes come whole. Chunks are never added to another
   * lane's sum one by one: the bits would then depend on who holds the lane.
   */
  readonly laneSums?: Float32Array | undefined;
}

/**
 * Where one lane's gradients go: into its partial-sum buffer, merged along the tree, and off to the reduction as soon as the
 * worker's last lane has finished a bucket. First `scalars`, then `gradient` as backward reports them, then `finish`.
 */
export class GradientSink {
  readonly #options: GradientSinkOptions;
  readonly #laneStep: LaneStep;
  readonly #isLastLane: boolean;
  readonly #buffer: Float32Array;
  /** Where the lane's chunks are summed: its buffer, or sums of its own that are added to the buffer once whole. */
  readonly #sums: Float32Array;
  /** By parameter: whether a chunk has been there. */
  readonly #begun: Uint8Array;
  /** Parameters of each bucket that this lane has not finished. */
  readonly #missing: number[];
  readonly #seen: Uint8Array;

  /** @param position of the lane among those held */
  constructor(position: number, options: GradientSinkOptions) {
    const { layout, schedule } = options;
    const laneStep = schedule.steps[position];
    if (laneStep === undefined) {
      throw new CoveyError('INTERNAL', 'invariant broken: a lane is computed that is not held', {
        fields: { position },
      });
    }
    this.#options = options;
    this.#laneStep = laneStep;
    this.#isLastLane = position === schedule.steps.length - 1;
    this.#buffer = options.buffers[laneStep.buffer]!;
    this.#sums = laneStep.starts ? this.#buffer : (options.laneSums ?? this.#buffer);
    this.#begun = new Uint8Array(layout.slots.length);
    this.#missing = layout.buckets.map((bucket) => bucket.parameters.length);
    this.#seen = new Uint8Array(layout.slots.length);
  }

  /**
   * What the objective computes itself. The extras ride in the last bucket, so they must be there before its parameters are.
   *
   * @param extras sums over samples, in the layout's order
   * @param gradients by parameter index, one float each
   */
  scalars(extras: readonly number[], gradients: ReadonlyMap<number, number>): void {
    const { parameterFloats, totalFloats, slots } = this.#options.layout;
    assert(extras.length === totalFloats - parameterFloats, 'the objective gives the extras of the layout');
    for (const [index, value] of extras.entries()) this.#addScalar(parameterFloats + index, value);
    this.#merge(parameterFloats, totalFloats);
    for (const [index, value] of gradients) {
      const { offset } = slots[index]!;
      this.#addScalar(offset, value);
      this.#complete(index);
    }
  }

  /** A finished gradient of the lane, or of one of its chunks. What `scalars` gave already is not taken again. */
  readonly gradient = (index: number, gradient: Tensor, isLastChunk: boolean): void => {
    if (this.#seen[index]) return;
    const { engine, layout } = this.#options;
    const { offset, length } = layout.slots[index]!;
    const region = this.#sums.subarray(offset, offset + length);
    // Into the lane's own sums, or onto what the buffer holds of lanes before.
    const replaces = this.#begun[index] === 0 && (this.#laneStep.starts || this.#sums !== this.#buffer);
    rootScope('gradient sums', () => {
      if (replaces) engine.readInto(gradient, region);
      else engine.addInto(gradient, region);
      this.#begun[index] = 1;
      if (isLastChunk) this.#complete(index);
    });
  };

  /** Parameters that this lane's loss does not reach count as zero. */
  finish(): void {
    this.#options.layout.slots.forEach(({ offset, length }, index) => {
      if (this.#seen[index]) return;
      if (this.#laneStep.starts && !this.#begun[index]) this.#buffer.fill(0, offset, offset + length);
      this.#complete(index);
    });
  }

  #addScalar(offset: number, value: number): void {
    // Rounded before it is added, as it is where the lane is alone in its buffer: else the bits would depend on who holds it.
    const rounded = Math.fround(value);
    this.#buffer[offset] = this.#laneStep.starts ? rounded : this.#buffer[offset]! + rounded;
  }

  #merge(begin: number, end: number): void {
    const { engine, buffers } = this.#options;
    for (const { target, source } of this.#laneStep.merges) {
      engine.addVectors(buffers[target]!.subarray(begin, end), buffers[source]!.subarray(begin, end));
    }
  }

  #complete(index: number): void {
    const { engine, layout, schedule, buffers, reduced, collectives, opFirstBucket, tickets } = this.#options;
    const { offset, length } = layout.slots[index]!;
    this.#seen[index] = 1;
    if (this.#begun[index] && this.#sums !== this.#buffer) {
      const range = [offset, offset + length] as const;
      engine.addVectors(this.#buffer.subarray(...range), this.#sums.subarray(...range));
    }
    this.#merge(offset, offset + length);
    const bucketIndex = layout.bucketOf[index]!;
    this.#missing[bucketIndex]!--;
    if (!this.#isLastLane || this.#missing[bucketIndex] !== 0) return;
    const { begin, end } = layout.buckets[bucketIndex]!;
    const partials = schedule.results.map((result) => buffers[result]!.subarray(begin, end));
    const out = reduced.subarray(begin, end);
    const op = opFirstBucket + bucketIndex;
    tickets.push(rootScope('collectives', () => collectives.startTreeAllReduce(op, partials, out)));
  }
}
