import { type Engine, type Tensor, type Tensor1D, type Tensor2D, tf } from '../../engine/index.ts';
import type { ViewModel } from '../../models/vision/view-model.ts';
import type { EncoderInput, GlobalBatch, Lane, LaneGradients, Objective } from './objective.ts';
import { OBJECTIVE_INPUTS } from './objective-inputs.ts';
import { hostSum } from './tiles.ts';

/**
 * Softmax classification with label smoothing ε (Szegedy et al. 2016, §7; PyTorch's `label_smoothing`):
 *
 *   L = −1/N Σ_i Σ_k q_ik log p_ik,  q = (1 − ε)·[k = y] + ε/K,  ∂/∂logit = p − q
 *
 * A sample's loss is its own, so nothing is gathered. Shapes: R samples of a lane, K classes.
 */
export class SupervisedObjective implements Objective {
  readonly inputs = OBJECTIVE_INPUTS.supervised;
  readonly outputs: Objective['outputs'];
  readonly exchanged = [];
  readonly scalars = [];
  /** Share of samples whose largest logit is their class's. */
  readonly metrics = ['top1_accuracy'];
  readonly #labelSmoothing: number;
  readonly #engine: Engine;
  readonly #model: ViewModel;

  constructor(
    options: { readonly labelSmoothing: number },
    modules: { readonly engine: Engine; readonly model: ViewModel },
  ) {
    this.#labelSmoothing = options.labelSmoothing;
    this.#engine = modules.engine;
    this.#model = modules.model;
    this.outputs = [{ name: 'logits', perSample: 1, width: modules.model.outputWidth, gathered: false }];
  }

  encode({ pixels_BHWC, dropSeeds: seeds }: EncoderInput): Tensor[] {
    return [this.#model.classify(pixels_BHWC, { training: true, seeds })];
  }

  exchange(): void {}

  laneGradients(_batch: GlobalBatch, { outputs: [logits], labels }: Lane): LaneGradients {
    let lossSum = 0;
    let correct = 0;
    const dLogits_RK = tf.tidy(() => {
      const logits_RK = logits as Tensor2D;
      const classes = logits_RK.shape[1];
      const label_R = tf.tensor1d(labels, 'int32');
      const epsilon = this.#labelSmoothing;
      const target_RK = tf.add(tf.mul(tf.oneHot(label_R, classes), 1 - epsilon), epsilon / classes);
      const logP_RK = tf.logSoftmax(logits_RK);
      lossSum = -hostSum(this.#engine, tf.sum(tf.mul(target_RK, logP_RK), 1) as Tensor1D);
      const best = tf.argMax(logits_RK, 1).dataSync();
      correct = labels.filter((label, row) => label === best[row]).length;
      return tf.sub(tf.exp(logP_RK), target_RK);
    });
    return { dOutputs: [dLogits_RK], lossSum, dScalars: [], metricSums: [correct] };
  }

  similarityScale(): number {
    return 1;
  }
}
