import { type Engine, rootScope, type Tensor1D, tf } from '../../engine/index.ts';
import type { EmbeddingHealth } from '../eval/embedding-health.ts';
import { gatheredHealth } from '../eval/gathered-health.ts';
import type { FinishedStep, GlobalBatch, Lane, LaneGradients, Objective } from '../objectives/objective.ts';
import type { BlockingCollectives } from './blocking-collectives.ts';
import { GatheredOutputs } from './gathered-outputs.ts';
import { type EncodedLane, type LaneInput, labelsOf, seedsOf } from './lane-encoder.ts';
import { LaneGather } from './lane-gather.ts';
import type { LearntScalars } from './learnt-scalars.ts';

/** Collective operations of a step that are the loss's, its first ones: gather outputs, gather what the objective exchanges. */
const OP_GATHER_OUTPUTS = 0;
const OP_GATHER_EXCHANGED = 1;
export const LOSS_OPS = 2;

/** A lane's outputs, however they came to be. */
type Outputs = Pick<EncodedLane, 'outputs'>;

export interface GlobalLossOptions {
  readonly globalBatch: number;
  readonly laneCount: number;
}

export interface GlobalLossModules {
  readonly engine: Engine;
  readonly objective: Objective;
  /** The objective's own. */
  readonly scalars: LearntScalars;
}

/** The loss of a step whose lanes have all been gathered. Close with `dispose`. */
export interface OpenLoss {
  /** Of the global loss, for one held lane. The caller disposes them. */
  gradients(input: LaneInput, encoded: Outputs): LaneGradients;
  dispose(): void;
}

/** The objective's exact loss over all lanes of all workers: what is gathered for it, exchanged, and asked of it lane by lane. */
export class GlobalLoss {
  readonly #objective: Objective;
  readonly #scalars: LearntScalars;
  readonly #globalBatch: number;
  readonly #laneBatch: number;
  readonly #outputs: GatheredOutputs;
  readonly #exchanged: LaneGather;

  constructor(options: GlobalLossOptions, { engine, objective, scalars }: GlobalLossModules) {
    const { globalBatch, laneCount } = options;
    this.#objective = objective;
    this.#scalars = scalars;
    this.#globalBatch = globalBatch;
    this.#laneBatch = globalBatch / laneCount;
    this.#outputs = new GatheredOutputs(options, { engine, objective });
    this.#exchanged = new LaneGather({ rows: objective.exchanged, laneCount, laneBatch: this.#laneBatch });
  }

  /** Whether no lane's loss needs another lane. */
  get isLocal(): boolean {
    return this.#outputs.isEmpty && this.#exchanged.isEmpty;
  }

  /** Writes what others need of a held lane into its block of the gather. */
  share(input: LaneInput, encoded: Outputs): void {
    rootScope('host copies', () => this.#outputs.share(input, encoded));
  }

  /** Blocks until all lanes' rows are here. Throws what the collectives throw. */
  gather(opBase: number, collectives: BlockingCollectives): void {
    rootScope('collectives', () => this.#outputs.run(opBase + OP_GATHER_OUTPUTS, collectives));
  }

  /** After `gather`: uploads all rows and exchanges the objective's own numbers per row. `encoded` may be empty where nothing is exchanged. */
  open(
    opBase: number,
    lanes: readonly LaneInput[],
    encoded: readonly Outputs[],
    collectives: BlockingCollectives,
  ): OpenLoss {
    const batch = rootScope('host copies', () => this.#outputs.batch(this.#scalars.read()));
    let exchanged: Tensor1D[] = [];
    try {
      exchanged = this.#exchange(opBase, batch, lanes, encoded, collectives);
    } catch (thrown) {
      tf.dispose([...batch.gathered]);
      throw thrown;
    }
    return {
      gradients: (input, outputs) =>
        rootScope('loss', () => this.#objective.laneGradients(batch, this.#laneOf(input, outputs), exchanged)),
      dispose: () => tf.dispose([...batch.gathered, ...exchanged]),
    };
  }

  /** Of what the last step gathered, which the weights before its update made. */
  embeddingHealth(): EmbeddingHealth {
    const rows = (kind: number) => this.#outputs.rows(kind);
    return gatheredHealth(this.#objective, { globalBatch: this.#globalBatch, laneBatch: this.#laneBatch, rows });
  }

  /** What the objective's own state follows. */
  finished(step: number): FinishedStep {
    return this.#outputs.finished(step);
  }

  /** First of the held lanes, then of all. */
  #exchange(
    opBase: number,
    batch: GlobalBatch,
    lanes: readonly LaneInput[],
    encoded: readonly Outputs[],
    collectives: BlockingCollectives,
  ): Tensor1D[] {
    if (this.#exchanged.isEmpty) return [];
    lanes.forEach((input, position) => {
      const out = this.#objective.exchanged.map((_, kind) => this.#exchanged.own(input.lane, kind));
      rootScope('loss', () => this.#objective.exchange(batch, this.#laneOf(input, encoded[position]!), out));
    });
    rootScope('collectives', () => this.#exchanged.run(opBase + OP_GATHER_EXCHANGED, collectives));
    return this.#objective.exchanged.map((_, kind) => tf.tensor1d(this.#exchanged.all(kind)));
  }

  #laneOf(input: LaneInput, { outputs }: Outputs): Lane {
    const samples = { begin: input.lane * this.#laneBatch, count: this.#laneBatch };
    return { samples, outputs, labels: labelsOf(input), seeds: seedsOf(input, this.#laneBatch) };
  }
}
