import { type Engine, type Tensor2D, tf } from '../../engine/index.ts';
import type { FinishedStep, GlobalBatch, Objective } from '../objectives/objective.ts';
import type { BlockingCollectives } from './blocking-collectives.ts';
import { type EncodedLane, type LaneInput, labelsOf } from './lane-encoder.ts';
import { LaneGather } from './lane-gather.ts';

/** Labels travel with the outputs: float32 holds whole numbers to 2²⁴ exactly. */
const LABEL_ROWS = { name: 'label', perSample: 1, width: 1 };

/** The outputs that other lanes' losses need, and the labels beside them: written lane by lane, gathered, and read as the global batch. */
export class GatheredOutputs {
  readonly #objective: Objective;
  readonly #engine: Engine;
  readonly #globalBatch: number;
  readonly #specs: Objective['outputs'];
  readonly #hasLabels: boolean;
  readonly #gather: LaneGather;

  constructor(
    { globalBatch, laneCount }: { readonly globalBatch: number; readonly laneCount: number },
    modules: { readonly engine: Engine; readonly objective: Objective },
  ) {
    this.#engine = modules.engine;
    this.#objective = modules.objective;
    this.#globalBatch = globalBatch;
    this.#specs = modules.objective.outputs.filter((output) => output.gathered);
    this.#hasLabels = modules.objective.inputs.labels && this.#specs.length > 0;
    const rows = [...this.#specs, ...(this.#hasLabels ? [LABEL_ROWS] : [])];
    this.#gather = new LaneGather({ rows, laneCount, laneBatch: globalBatch / laneCount });
  }

  /** Whether no lane needs anything of another. */
  get isEmpty(): boolean {
    return this.#gather.isEmpty;
  }

  /** Writes what others need of a held lane. */
  share(input: LaneInput, { outputs }: Pick<EncodedLane, 'outputs'>): void {
    const gathered = outputs.filter((_, index) => this.#objective.outputs[index]!.gathered);
    gathered.forEach((rows, kind) => {
      this.#engine.readInto(rows, this.#gather.own(input.lane, kind));
    });
    if (this.#hasLabels) this.#gather.own(input.lane, gathered.length).set(labelsOf(input));
  }

  /** Blocks until all lanes' rows are here. Throws what the collectives throw. */
  run(op: number, collectives: BlockingCollectives): void {
    this.#gather.run(op, collectives);
  }

  /** Uploads all lanes' rows. The caller disposes `gathered`. */
  batch(scalars: readonly number[]): GlobalBatch {
    const samples = this.#globalBatch;
    const gathered = this.#specs.map(
      ({ perSample, width }, kind): Tensor2D => tf.tensor2d(this.rows(kind), [samples * perSample, width]),
    );
    return { samples, gathered, labels: this.#labels(), scalars };
  }

  /** All lanes' rows of one gathered output, in lane order. */
  rows(kind: number): Float32Array {
    return this.#gather.all(kind);
  }

  finished(step: number): FinishedStep {
    return { step, gathered: this.#specs.map((_, kind) => this.rows(kind)), labels: this.#labels() };
  }

  #labels(): Int32Array {
    return Int32Array.from(this.#hasLabels ? this.#gather.all(this.#specs.length) : []);
  }
}
