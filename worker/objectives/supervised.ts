import type { Engine, Tensor, Tensor2D } from '../../engine/index.ts';
import type { LanesTogether } from '../../models/vision/lanes-together.ts';
import type { ViewModel } from '../../models/vision/view-model.ts';
import { laneMixing, mixed } from './mixup.ts';
import type { EncoderInput, GlobalBatch, Lane, LaneGradients, Objective } from './objective.ts';
import { OBJECTIVE_INPUTS } from './objective-inputs.ts';
import { smoothedTargets, softmaxLoss } from './softmax-loss.ts';

export interface SupervisedOptions {
  readonly labelSmoothing: number;
  /** α of mixup's Beta(α, α); undefined: pictures as they are. */
  readonly mixup?: number | undefined;
}

/**
 * Softmax classification with label smoothing ε (Szegedy et al. 2016, §7; PyTorch's `label_smoothing`), of mixed pictures where wanted:
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
  /** Share of samples whose largest logit is their class's; of a mixed one each class counts with its share, as in mixup's code. */
  readonly metrics = ['top1_accuracy'];
  readonly #options: SupervisedOptions;
  readonly #engine: Engine;
  readonly #model: ViewModel;

  constructor(options: SupervisedOptions, modules: { readonly engine: Engine; readonly model: ViewModel }) {
    this.#options = options;
    this.#engine = modules.engine;
    this.#model = modules.model;
    this.outputs = [{ name: 'logits', perSample: 1, width: modules.model.outputWidth, gathered: false }];
  }

  encode(input: EncoderInput): Tensor[] {
    return [this.#model.classify(this.#shown(input), { training: true, seeds: input.dropSeeds })];
  }

  encodeTogether(inputs: readonly EncoderInput[], together: LanesTogether): Tensor[][] {
    const shown = inputs.map((input) => this.#shown(input));
    return this.#model.classifyTogether(shown, together).map((logits) => [logits]);
  }

  #shown({ pixels_BHWC, seeds }: EncoderInput): Tensor {
    const { mixup } = this.#options;
    return mixup === undefined ? pixels_BHWC : mixed(pixels_BHWC, laneMixing(seeds, mixup));
  }

  exchange(): void {}

  laneGradients(_batch: GlobalBatch, { outputs: [logits], labels, seeds }: Lane): LaneGradients {
    const { labelSmoothing, mixup } = this.#options;
    const mixing = mixup === undefined ? undefined : laneMixing(seeds, mixup);
    const plain_RK = smoothedTargets(labels, this.#model.outputWidth, labelSmoothing);
    const target_RK = mixing === undefined ? plain_RK : (mixed(plain_RK, mixing) as Tensor2D);
    if (mixing !== undefined) plain_RK.dispose();
    const { dLogits_RK, lossSum, best_R } = softmaxLoss(this.#engine, logits!, target_RK);
    let correct = 0;
    labels.forEach((label, row) => {
      const own = mixing?.share[row] ?? 1;
      const other = labels[mixing?.partner[row] ?? row];
      correct += (label === best_R[row] ? own : 0) + (other === best_R[row] ? 1 - own : 0);
    });
    return { dOutputs: [dLogits_RK], lossSum, dScalars: [], metricSums: [correct] };
  }

  similarityScale(): number {
    return 1;
  }
}
