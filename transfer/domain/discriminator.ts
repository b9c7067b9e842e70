import { gradientReversal, moduleScope, type Tensor, type Tensor2D, tf, unrecorded } from '../../engine/index.ts';
import type { ParameterLookup } from '../../models/clip/transformer.ts';
import { makeVariables, type NamedVariable } from '../../models/named-variables.ts';
import { BatchStatistics } from '../../models/vision/batch-statistics.ts';
import { type MlpShape, mlp, mlpBufferSpecs, mlpParameterSpecs } from '../../models/vision/mlp-head.ts';
import type { Alignment, TuneMoment } from '../tune/alignment.ts';
import { type ReversalSchedule, reversalCoefficient } from './reversal-schedule.ts';

const PREFIX = 'domain.discriminator';

export interface DiscriminatorOptions {
  readonly featureWidth: number;
  /** Of its two hidden layers. */
  readonly width: number;
  readonly weight: number;
  readonly reversal: ReversalSchedule;
  readonly seed: number;
}

let instances = 0;

/**
 * Domain-adversarial learning (DANN; Ganin et al. 2016, §4.2): a classifier of domains that learns from the features through a gradient reversal, so
 * that the features learn to leave it nothing. Linear, batch norm and ReLU twice, then one logit, as in Transfer-Learn-Library
 * (`tllib/modules/domain_discriminator.py`); the source is 1, the target 0. Its norms see both domains' features together.
 */
export class Discriminator implements Alignment {
  readonly weight: number;
  readonly parameters: readonly NamedVariable[];
  readonly buffers: readonly NamedVariable[];
  readonly #options: DiscriminatorOptions;
  readonly #shape: MlpShape;
  readonly #statistics: BatchStatistics;
  readonly #laneStatistics: Float32Array;
  readonly #byName: ReadonlyMap<string, NamedVariable>;
  #measures: Readonly<Record<string, number>> = {};

  constructor(options: DiscriminatorOptions) {
    const { featureWidth, width, seed } = options;
    this.#options = options;
    this.weight = options.weight;
    const shape = { layers: 3, inputs: featureWidth, hidden: width, outputs: 1 };
    this.#shape = { ...shape, batchNorm: true, lastNorm: false, lastBias: true };
    const scope = `discriminator-${instances++}`;
    const common = { seed, init: 'random', scope } as const;
    this.parameters = makeVariables(mlpParameterSpecs(PREFIX, this.#shape), { ...common, trainable: true });
    this.buffers = makeVariables(mlpBufferSpecs(PREFIX, this.#shape), { ...common, trainable: false });
    this.#byName = new Map([...this.parameters, ...this.buffers].map((one) => [one.name, one]));
    this.#statistics = new BatchStatistics(this.buffers, scope);
    this.#laneStatistics = new Float32Array(this.#statistics.length);
  }

  /** ½·(mean −log D(source) + mean −log(1 − D(target))) of reversed features. */
  loss(source_BF: Tensor2D, target_BF: Tensor2D, moment: TuneMoment): Tensor {
    const coefficient = reversalCoefficient(moment, this.#options.reversal);
    this.#statistics.begin();
    return tf.tidy(() => {
      const reversed_NF = gradientReversal(tf.concat2d([source_BF, target_BF], 0), coefficient);
      const logits_N1 = this.#logits(reversed_NF);
      const [sources, targets] = [source_BF.shape[0], target_BF.shape[0]];
      const loss = domainLoss(logits_N1, sources);
      unrecorded(() => {
        this.#statistics.read(this.#laneStatistics);
        const logits = logits_N1.dataSync<'float32'>();
        const right = logits.filter((logit, row) => logit > 0 === row < sources).length;
        const alignmentLoss = loss.dataSync<'float32'>()[0]!;
        this.#measures = { alignmentLoss, adversaryAccuracy: right / (sources + targets), reversal: coefficient };
      });
      return loss;
    });
  }

  finishStep(): Readonly<Record<string, number>> {
    this.#statistics.apply(this.#laneStatistics);
    return this.#measures;
  }

  dispose(): void {
    for (const { variable } of [...this.parameters, ...this.buffers]) variable.dispose();
    this.#statistics.dispose();
  }

  /** How much each row looks like the source, [N,1]: a logit. Normalised by the rows' own statistics. */
  #logits(features_NF: Tensor2D): Tensor2D {
    const normalise = this.#statistics.layer(this.#lookup, { training: true });
    const tower = { parameter: this.#lookup, normalise };
    return moduleScope('discriminator', () => mlp(features_NF, PREFIX, this.#shape, tower));
  }

  readonly #lookup: ParameterLookup = <T extends Tensor>(name: string) =>
    this.#byName.get(name)!.variable as Tensor as T;
}

/** Binary cross-entropy of logits [N,1] whose first rows are the source's, each domain's mean counting half. */
export function domainLoss(logits_N1: Tensor2D, sources: number): Tensor {
  return tf.tidy(() => {
    const targets = logits_N1.shape[0] - sources;
    const source = tf.mean(tf.softplus(tf.neg(tf.slice(logits_N1, [0, 0], [sources, 1]))));
    const target = tf.mean(tf.softplus(tf.slice(logits_N1, [sources, 0], [targets, 1])));
    return tf.mul(tf.add(source, target), 0.5);
  });
}
