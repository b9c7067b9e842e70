import { type Tensor, type Tensor1D, tf } from '../../engine/index.ts';
import type { NamedVariable } from '../../models/named-variables.ts';
import { JointStatistics } from './joint-statistics.ts';
import type {
  EncoderInput,
  FinishedStep,
  GlobalBatch,
  Lane,
  LaneGradients,
  LaneStatistics,
  Objective,
  OutputSpec,
  TrainedModel,
} from './objective.ts';

/** One of several objectives that share towers. */
export interface JointPart {
  readonly name: string;
  /** Of its loss in the sum. */
  readonly weight: number;
  readonly objective: Objective;
  readonly model: TrainedModel;
}

/** What a part's things are called among those of all parts. */
const named = (part: JointPart, name: string) => `${part.name}_${name.replaceAll('-', '_')}`;

/**
 * The models of all parts as one: a parameter that several have under one name is one variable, and its gradient the sum of theirs. Disposes
 * all of them.
 */
export class JointModel implements TrainedModel {
  readonly parameters: readonly NamedVariable[];
  readonly buffers: readonly NamedVariable[];
  readonly statistics?: LaneStatistics;
  readonly parts: readonly JointPart[];

  constructor(parts: readonly JointPart[]) {
    this.parts = parts;
    this.parameters = distinct(parts.flatMap(({ model }) => model.parameters));
    this.buffers = distinct(parts.flatMap(({ model }) => model.buffers ?? []));
    const statistics = parts.flatMap(({ model }) => model.statistics ?? []);
    if (statistics.length > 0) this.statistics = new JointStatistics(statistics);
  }

  dispose(): void {
    for (const { model } of this.parts) model.dispose();
  }
}

function distinct(variables: readonly NamedVariable[]): NamedVariable[] {
  return [...new Map(variables.map((one) => [one.name, one])).values()];
}

/**
 * Several objectives on one batch, Σ_p w_p·L_p, each exact over the whole batch as it is alone (CLIP + SimCLR: SLIP, Mu et al. 2022, §3.1).
 * The towers are shared; every part has views of its own of each picture, as SLIP has one for the captions and two for SimCLR, but the
 * captions, labels and seeds are the same.
 */
export class JointObjective implements Objective {
  readonly inputs: Objective['inputs'];
  readonly outputs: Objective['outputs'];
  readonly exchanged: Objective['exchanged'];
  readonly scalars: Objective['scalars'];
  /** Each part's own loss, not weighted, and its metrics. */
  readonly metrics: readonly string[];
  readonly #parts: readonly JointPart[];

  constructor(parts: readonly JointPart[], inputs: Objective['inputs']) {
    this.#parts = parts;
    this.inputs = inputs;
    this.outputs = parts.flatMap((part) => part.objective.outputs.map((spec) => renamed(part, spec)));
    this.exchanged = parts.flatMap((part) => part.objective.exchanged.map((spec) => renamed(part, spec)));
    this.scalars = parts.flatMap(({ objective }) => objective.scalars);
    this.metrics = parts.flatMap((part) => ['loss', ...part.objective.metrics].map((name) => named(part, name)));
  }

  encode(input: EncoderInput): Tensor[] {
    let firstView = 0;
    return this.#parts.flatMap(({ objective }) => {
      const { views, captions, labels } = objective.inputs;
      const begin = firstView;
      firstView += views;
      return tf.tidy(() =>
        objective.encode({
          samples: input.samples,
          pixels_BHWC: viewsOf(input, begin, views),
          tokens: captions ? input.tokens : new Int32Array(0),
          labels: labels ? input.labels : new Int32Array(0),
          seeds: input.seeds,
          dropSeeds: input.dropSeeds,
        }),
      );
    });
  }

  exchange(batch: GlobalBatch, lane: Lane, out: readonly Float32Array[]): void {
    const outOf = this.#slices(out, ({ exchanged }) => exchanged);
    this.#parts.forEach(({ objective }, index) => {
      if (objective.exchanged.length > 0) {
        objective.exchange(this.#batches(batch)[index]!, this.#lanes(lane)[index]!, outOf[index]!);
      }
    });
  }

  laneGradients(batch: GlobalBatch, lane: Lane, exchanged: readonly Tensor1D[]): LaneGradients {
    const exchangedOf = this.#slices(exchanged, (objective) => objective.exchanged);
    const [batches, lanes] = [this.#batches(batch), this.#lanes(lane)];
    const results = this.#parts.map(({ objective, weight }, index) => {
      const own = objective.laneGradients(batches[index]!, lanes[index]!, exchangedOf[index]!);
      return { own, weight };
    });
    return {
      dOutputs: results.flatMap(({ own, weight }) => own.dOutputs.map((gradient) => weighted(gradient, weight))),
      lossSum: results.reduce((sum, { own, weight }) => sum + weight * own.lossSum, 0),
      dScalars: results.flatMap(({ own, weight }) => own.dScalars.map((gradient) => weight * gradient)),
      metricSums: results.flatMap(({ own }) => [own.lossSum, ...own.metricSums]),
    };
  }

  afterUpdate({ step, gathered, labels }: FinishedStep): void {
    const gatheredOf = this.#slices(gathered, gatheredOutputs);
    this.#parts.forEach(({ objective }, index) => {
      objective.afterUpdate?.({ step, gathered: gatheredOf[index]!, labels: ownLabels(objective, labels) });
    });
  }

  /** That of the first part that has one. */
  similarityScale(scalars: readonly number[]): number {
    const scalarsOf = this.#slices(scalars, (objective) => objective.scalars);
    const scales = this.#parts.map(({ objective }, index) => objective.similarityScale(scalarsOf[index]!));
    return scales.find((scale) => scale !== 1) ?? 1;
  }

  #batches({ samples, gathered, labels, scalars }: GlobalBatch): GlobalBatch[] {
    const gatheredOf = this.#slices(gathered, gatheredOutputs);
    const scalarsOf = this.#slices(scalars, (objective) => objective.scalars);
    return this.#parts.map(({ objective }, index) => ({
      samples,
      gathered: gatheredOf[index]!,
      labels: ownLabels(objective, labels),
      scalars: scalarsOf[index]!,
    }));
  }

  #lanes({ samples, outputs, labels, seeds }: Lane): Lane[] {
    const outputsOf = this.#slices(outputs, (objective) => objective.outputs);
    return this.#parts.map(({ objective }, index) => {
      return { samples, outputs: outputsOf[index]!, labels: ownLabels(objective, labels), seeds };
    });
  }

  /** A list that holds what each part has of something, one part's behind another's, cut up again. */
  #slices<T>(all: readonly T[], of: (objective: Objective) => readonly unknown[]): T[][] {
    let begin = 0;
    return this.#parts.map(({ objective }) => {
      const { length } = of(objective);
      begin += length;
      return all.slice(begin - length, begin);
    });
  }
}

const gatheredOutputs = ({ outputs }: Objective): OutputSpec[] => outputs.filter(({ gathered }) => gathered);

function renamed<T extends { readonly name: string; readonly partner?: string }>(part: JointPart, spec: T): T {
  const { name, partner } = spec;
  return { ...spec, name: named(part, name), ...(partner === undefined ? {} : { partner: named(part, partner) }) };
}

function ownLabels({ inputs }: Objective, labels: Int32Array): Int32Array {
  return inputs.labels ? labels : new Int32Array(0);
}

/** The rows of some of the views. */
function viewsOf({ pixels_BHWC, samples }: EncoderInput, begin: number, views: number): Tensor {
  const [, ...rest] = pixels_BHWC.shape;
  return tf.slice(pixels_BHWC, [begin * samples, 0, 0, 0], [views * samples, ...rest]);
}

/** w·g; takes `gradient` over. */
function weighted(gradient: Tensor | null, weight: number): Tensor | null {
  if (gradient === null || weight === 1) return gradient;
  const scaled = tf.mul(gradient, weight);
  gradient.dispose();
  return scaled;
}
