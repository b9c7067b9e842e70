import { type Engine, tf } from '../../engine/index.ts';
import type { GlobalBatch, Lane, Objective, TrainedModel } from '../objectives/objective.ts';
import type { BlockingCollectives } from '../train/blocking-collectives.ts';
import {
  type EncodedLane,
  LaneEncoder,
  type LaneEncoderOptions,
  type LaneInput,
  labelsOf,
  seedsOf,
} from '../train/lane-encoder.ts';
import { LaneGather } from '../train/lane-gather.ts';
import { LearntScalars } from '../train/learnt-scalars.ts';

const LABEL_ROWS = { name: 'label', perSample: 1, width: 1 };
const LOSS_ROWS = { name: 'loss', perSample: 1, width: 1 };

export interface HeldOutLossOptions extends LaneEncoderOptions {
  readonly laneCount: number;
}

/**
 * The objective's loss of a global batch without an update: what a step computes up to its gradients, which are thrown away. Lane by lane and
 * summed in lane order, so it is the same at any number of workers. Nothing of the training state changes.
 */
export class HeldOutLoss {
  readonly #options: HeldOutLossOptions;
  readonly #engine: Engine;
  readonly #objective: Objective;
  readonly #encoder: LaneEncoder;
  readonly #scalars: LearntScalars;
  readonly #outputs: LaneGather;
  readonly #exchanged: LaneGather;
  readonly #losses: LaneGather;

  constructor(
    options: HeldOutLossOptions,
    modules: { readonly engine: Engine; readonly model: TrainedModel; readonly objective: Objective },
  ) {
    const { engine, model, objective } = modules;
    this.#options = options;
    this.#engine = engine;
    this.#objective = objective;
    this.#encoder = new LaneEncoder({ ...options, heldOut: true }, { objective, statistics: undefined });
    this.#scalars = new LearntScalars(engine, objective.scalars, model.parameters);
    const { laneCount, laneBatch } = options;
    const gathered = objective.outputs.filter((output) => output.gathered);
    const labels = objective.inputs.labels && gathered.length > 0 ? [LABEL_ROWS] : [];
    this.#outputs = new LaneGather({ rows: [...gathered, ...labels], laneCount, laneBatch });
    this.#exchanged = new LaneGather({ rows: objective.exchanged, laneCount, laneBatch });
    this.#losses = new LaneGather({ rows: [LOSS_ROWS], laneCount, laneBatch: 1 });
  }

  /** Summed over the samples of the global batch. @param nextOp a number for each collective, the same on every worker */
  sum(lanes: readonly LaneInput[], collectives: BlockingCollectives, nextOp: () => number): number {
    const encoded: EncodedLane[] = [];
    let batch: GlobalBatch | undefined;
    let exchanged: tf.Tensor1D[] = [];
    try {
      for (const lane of lanes) encoded.push(this.#encode(lane));
      this.#outputs.run(nextOp(), collectives);
      const global = this.#globalBatch();
      batch = global;
      const held = lanes.map((lane, i) => this.#laneOf(lane, encoded[i]!));
      exchanged = this.#exchange(global, lanes, held, collectives, nextOp());
      for (const [i, lane] of held.entries()) {
        const { dOutputs, lossSum } = this.#objective.laneGradients(global, lane, exchanged);
        tf.dispose(dOutputs.filter((one) => one !== null));
        this.#losses.own(lanes[i]!.lane, 0)[0] = lossSum;
      }
      this.#losses.run(nextOp(), collectives);
      return this.#losses.all(0).reduce((sum, loss) => sum + loss, 0);
    } finally {
      for (const lane of encoded) lane.dispose();
      tf.dispose([...(batch?.gathered ?? []), ...exchanged]);
    }
  }

  #encode(input: LaneInput): EncodedLane {
    const { outputs, inputs } = this.#objective;
    // Forward alone: there is no backward that a tape would serve.
    const encoded = this.#encoder.encodeTwice(input, this.#options.laneBatch);
    const gathered = encoded.outputs.filter((_, index) => outputs[index]!.gathered);
    for (const [kind, rows] of gathered.entries()) this.#engine.readInto(rows, this.#outputs.own(input.lane, kind));
    if (inputs.labels && gathered.length > 0) this.#outputs.own(input.lane, gathered.length).set(labelsOf(input));
    return encoded;
  }

  #laneOf(input: LaneInput, { outputs }: EncodedLane): Lane {
    const { laneBatch } = this.#options;
    const samples = { begin: input.lane * laneBatch, count: laneBatch };
    return { samples, outputs, labels: labelsOf(input), seeds: seedsOf(input, laneBatch) };
  }

  /** The caller disposes `gathered`. */
  #globalBatch(): GlobalBatch {
    const { laneCount, laneBatch } = this.#options;
    const samples = laneCount * laneBatch;
    const { inputs, outputs } = this.#objective;
    const specs = outputs.filter((output) => output.gathered);
    const gathered = specs.map(({ perSample, width }, kind) =>
      tf.tensor2d(this.#outputs.all(kind), [samples * perSample, width]),
    );
    const labels = Int32Array.from(inputs.labels && specs.length > 0 ? this.#outputs.all(specs.length) : []);
    return { samples, gathered, labels, scalars: this.#scalars.read() };
  }

  #exchange(
    batch: GlobalBatch,
    lanes: readonly LaneInput[],
    held: readonly Lane[],
    collectives: BlockingCollectives,
    op: number,
  ): tf.Tensor1D[] {
    if (this.#exchanged.isEmpty) return [];
    for (const [i, lane] of held.entries()) {
      const out = this.#objective.exchanged.map((_, kind) => this.#exchanged.own(lanes[i]!.lane, kind));
      this.#objective.exchange(batch, lane, out);
    }
    this.#exchanged.run(op, collectives);
    return this.#objective.exchanged.map((_, kind) => tf.tensor1d(this.#exchanged.all(kind)));
  }
}
