import type { Tensor, Tensor1D, Tensor2D } from '../../engine/index.ts';
import type { NamedVariable } from '../../models/named-variables.ts';
import type { LanesTogether } from '../../models/vision/lanes-together.ts';
import type { RowRange } from './tiles.ts';

/**
 * The seam between what is learnt and how a step runs. The trainer encodes each held lane, gathers the rows an objective names, exchanges
 * the few numbers per row it asks for, and then asks it lane by lane for the exact gradient of the *global* loss with respect to that
 * lane's outputs. No gradient of an output travels, and nothing of size N×N is made.
 *
 * All sums here are over samples, not yet divided by their number: the trainer divides once, after the reduction over lanes.
 */

/** What is learnt, and the parameters that learn it. */
export interface TrainedModel {
  readonly parameters: readonly NamedVariable[];
  /**
   * State that no gradient changes: running statistics, a momentum encoder, a queue. It belongs to the training state as the weights do:
   * a checkpoint and a healing peer carry it, the digest covers it. Default none.
   */
  readonly buffers?: readonly NamedVariable[];
  /** Default none. */
  readonly statistics?: LaneStatistics;
  dispose(): void;
}

/**
 * What a forward in training finds out about its lane and what the model keeps an average of: batch norm's means and variances. The mean
 * over all lanes is taken in the lane tree, so it is the same, bit for bit, whoever holds which lanes.
 */
export interface LaneStatistics {
  /** Floats of one lane. */
  readonly length: number;
  /** What they are of, one behind another. Models that share a tower have the same names for what they share. */
  readonly entries: readonly { readonly name: string; readonly length: number }[];
  /** Batch norms that it is of. */
  readonly norms?: number;
  /** A lane is about to be encoded: what other forwards left is forgotten. */
  begin(): void;
  /** Those of the lane that was encoded last; asked for right after `encode`. */
  read(out: Float32Array): void;
  /** Takes the mean over all lanes over. Called once the step's update is applied, with the same bits on every worker. */
  apply(mean: Float32Array): void;
}

/** What an objective takes of every sample. */
export interface ObjectiveInputs {
  /** Augmented pictures per sample; 0: no picture is even read. */
  readonly views: number;
  readonly captions: boolean;
  /** A class, as an index. */
  readonly labels: boolean;
}

/** Rows that every sample has: `perSample` of them, `width` floats each. */
export interface RowsSpec {
  readonly name: string;
  readonly perSample: number;
  readonly width: number;
}

export interface OutputSpec extends RowsSpec {
  /** Name of the output whose rows belong to the same samples: a caption's to its picture. Two rows of one sample are partners anyway. */
  readonly partner?: string;
  /** Whether other lanes' losses need these rows. What is not gathered stays where it was computed. */
  readonly gathered: boolean;
}

/** A parameter of the objective itself: a scalar whose gradient it writes down, held in [min, max] after every update. */
export interface LearntScalar {
  /** Name among the model's parameters. */
  readonly name: string;
  readonly min: number;
  readonly max: number;
}

/** A lane's inputs as the encoders take them. */
export interface EncoderInput {
  readonly samples: number;
  /** Normalised pixels, [views × samples, side, side, 3]: the first view of every sample, then the second. */
  readonly pixels_BHWC: Tensor;
  /** [samples, contextLength]; empty without captions. */
  readonly tokens: Int32Array;
  /** Classes, [samples]; empty without labels. */
  readonly labels: Int32Array;
  /** What a sample's own randomness (masks, dropped patches, rotations) is drawn from: a pure function of (run's seed, epoch, sample). */
  readonly seeds: Uint32Array;
  /** The same seeds, for what regularises the model in training alone (dropped patches); absent when held-out samples are encoded. */
  readonly dropSeeds?: Uint32Array | undefined;
}

/** What a lane's loss is computed from, besides the lane itself. */
export interface GlobalBatch {
  /** Samples in the global batch, N. */
  readonly samples: number;
  /** Of each gathered output, in the order declared: all lanes' rows, in lane order, float32 [N × perSample, width]. */
  readonly gathered: readonly Tensor2D[];
  /** Classes of all samples in lane order; empty unless the objective takes labels and gathers. */
  readonly labels: Int32Array;
  /** Values of the objective's own scalars, in the order declared. */
  readonly scalars: readonly number[];
}

export interface Lane {
  /** Where its samples lie in the global batch. */
  readonly samples: RowRange;
  /** What `encode` returned for it. */
  readonly outputs: readonly Tensor[];
  /** Classes of its samples; empty without labels. */
  readonly labels: Int32Array;
  /** Seeds of its samples: see `EncoderInput`. */
  readonly seeds: Uint32Array;
}

export interface LaneGradients {
  /** Of the summed global loss, one for each output, in its shape; null where none flows back. The caller disposes them. */
  readonly dOutputs: readonly (Tensor | null)[];
  /** This lane's share of the summed loss. */
  readonly lossSum: number;
  /** This lane's shares of the gradients of the objective's scalars, in the order declared. */
  readonly dScalars: readonly number[];
  /** This lane's shares of the metrics, in the order declared. */
  readonly metricSums: readonly number[];
}

/** A step whose update has been applied. */
export interface FinishedStep {
  /** Its index. */
  readonly step: number;
  /** Of each gathered output, in the order declared: all lanes' rows, in lane order, [N × perSample × width]. */
  readonly gathered: readonly Float32Array[];
  /** As in `GlobalBatch`. */
  readonly labels: Int32Array;
}

/** A step may be given up half-way and computed again, so nothing but `afterUpdate` changes any state. */
export interface Objective {
  readonly inputs: ObjectiveInputs;
  /** What `encode` makes of a lane. */
  readonly outputs: readonly OutputSpec[];
  /** Numbers per row that workers exchange once the outputs are gathered, before any gradient; of width 1. Often none. */
  readonly exchanged: readonly RowsSpec[];
  readonly scalars: readonly LearntScalar[];
  /** Names of the step's further results: each a mean over the samples of the global batch. */
  readonly metrics: readonly string[];

  /**
   * A lane's forward, recorded by the caller: float32 [samples × perSample, width] for each output, the first row of every sample before
   * the second, as the views of the pixels are. It may be called twice for the same samples and must then do the same (GradCache), and with a part of a
   * lane's samples, unless the config refuses that (common/config/memory-config.ts) because they see each other.
   */
  encode(input: EncoderInput): Tensor[];

  /** The same of all held lanes side by side, whose batch norms see all lanes; absent where that is not possible. */
  encodeTogether?(inputs: readonly EncoderInput[], together: LanesTogether): Tensor[][];

  /** Writes a lane's part of what is exchanged, one array per entry of `exchanged`. Not called where there is none. */
  exchange(batch: GlobalBatch, lane: Lane, out: readonly Float32Array[]): void;

  /** @param exchanged all lanes' numbers, one tensor [N × perSample] per entry of `exchanged` */
  laneGradients(batch: GlobalBatch, lane: Lane, exchanged: readonly Tensor1D[]): LaneGradients;

  /**
   * Moves the objective's own state on (the model's buffers: momentum encoder, queue), once an update has been applied; not after a step
   * that was skipped or given up. Every worker must do the same to the bit.
   */
  afterUpdate?(finished: FinishedStep): void;

  /** What similarities are multiplied by, for the reader of a log; 1 where there are none. */
  similarityScale(scalars: readonly number[]): number;
}
