import { type Engine, type Tensor, tf } from '../../engine/index.ts';
import type { ViewModel } from '../../models/vision/view-model.ts';
import type { EncoderInput, GlobalBatch, Lane, LaneGradients, Objective } from './objective.ts';
import { OBJECTIVE_INPUTS, QUARTER_TURNS } from './objective-inputs.ts';
import { allQuarterTurns } from './quarter-turns.ts';
import { countCorrect, smoothedTargets, softmaxLoss } from './softmax-loss.ts';

/**
 * Which way up is a picture? (Gidaris et al. 2018, equations 1 and 2.) Every picture is shown in its four rotations, all in one batch,
 * and a classifier tells them apart:
 *
 *   L = −1/N Σ_i 1/4 Σ_y log F^y(g(X_i | y)),  g(· | y): turned y times by 90°
 */
export class RotationObjective implements Objective {
  readonly inputs = OBJECTIVE_INPUTS.rotation;
  readonly outputs: Objective['outputs'] = [
    { name: 'logits', perSample: QUARTER_TURNS, width: QUARTER_TURNS, gathered: false },
  ];
  readonly exchanged = [];
  readonly scalars = [];
  /** Share of rotated pictures whose rotation is found. */
  readonly metrics = ['top1_accuracy'];
  readonly #engine: Engine;
  readonly #model: ViewModel;

  constructor(modules: { readonly engine: Engine; readonly model: ViewModel }) {
    this.#engine = modules.engine;
    this.#model = modules.model;
  }

  encode({ pixels_BHWC, dropSeeds }: EncoderInput): Tensor[] {
    return [this.#model.classify(allQuarterTurns(pixels_BHWC), { training: true, seeds: dropSeeds })];
  }

  exchange(): void {}

  laneGradients(_batch: GlobalBatch, { outputs: [logits], samples }: Lane): LaneGradients {
    const labels = Int32Array.from({ length: QUARTER_TURNS * samples.count }, (_, row) =>
      Math.floor(row / samples.count),
    );
    const loss = softmaxLoss(this.#engine, logits!, smoothedTargets(labels, QUARTER_TURNS, 0));
    const dLogits = tf.div(loss.dLogits_RK, QUARTER_TURNS);
    loss.dLogits_RK.dispose();
    return {
      dOutputs: [dLogits],
      lossSum: loss.lossSum / QUARTER_TURNS,
      dScalars: [],
      metricSums: [countCorrect(loss, labels) / QUARTER_TURNS],
    };
  }

  similarityScale(): number {
    return 1;
  }
}
