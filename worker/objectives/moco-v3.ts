import { type Tensor, type Tensor1D, type Tensor2D, tf } from '../../engine/index.ts';
import { type KeyGradients, keyGradients } from './key-contrast.ts';
import { keyMomentum, MOCO_METRICS, type MocoModules, type MocoObjectiveOptions, viewOf } from './moco.ts';
import type { EncoderInput, FinishedStep, GlobalBatch, Lane, LaneGradients, Objective } from './objective.ts';
import { OBJECTIVE_INPUTS } from './objective-inputs.ts';

const VIEWS = [0, 1] as const;

/**
 * MoCo v3 (Chen et al. 2021, algorithm 1): no queue; the queries of either view are told apart by the key of the other view from all keys of
 * that view in the global batch,
 *
 *   L = ctr(q₁, k₂) + ctr(q₂, k₁),  ctr(q, k) = 2τ·mean_i −log( exp(q_i·k_i/τ) / Σ_j exp(q_i·k_j/τ) )
 *
 * with a prediction head on the query's side only. Each view is encoded by itself, so no batch norm sees both. Shapes: R samples of a lane,
 * N of the global batch, D width.
 */
export class MocoV3Objective implements Objective {
  readonly inputs = OBJECTIVE_INPUTS['moco-v3'];
  readonly outputs: Objective['outputs'];
  readonly exchanged = [];
  readonly scalars = [];
  readonly metrics = MOCO_METRICS;
  readonly #options: MocoObjectiveOptions;
  readonly #modules: MocoModules;

  constructor(options: MocoObjectiveOptions, modules: MocoModules) {
    this.#options = options;
    this.#modules = modules;
    const rows = { perSample: 1, width: modules.model.query.outputWidth };
    this.outputs = [
      ...VIEWS.map((view) => ({ name: `query${view}`, ...rows, gathered: false })),
      { name: 'key0', ...rows, gathered: true, partner: 'key1' },
      { name: 'key1', ...rows, gathered: true },
    ];
  }

  encode({ pixels_BHWC, samples, dropSeeds: seeds }: EncoderInput): Tensor[] {
    const { model } = this.#modules;
    const views = VIEWS.map((view) => viewOf(pixels_BHWC, view, samples));
    const keys = views.map((view) => model.keys(view));
    const project = (x_BHWC: Tensor, firstView: number) =>
      model.query.project(x_BHWC, { training: true, seeds, firstView });
    return [...views.map(project), ...keys];
  }

  exchange(): void {}

  laneGradients({ gathered }: GlobalBatch, { outputs, samples }: Lane, _exchanged: readonly Tensor1D[]): LaneGradients {
    const { temperature } = this.#options;
    const parts = VIEWS.map((view): KeyGradients => {
      const other = 1 - view;
      const contrast = {
        q_RD: outputs[view] as Tensor2D,
        key_RD: outputs[VIEWS.length + other] as Tensor2D,
        others_KD: gathered[other]!,
        ownRow: samples.begin,
      };
      return keyGradients(this.#modules.engine, contrast, temperature);
    });
    const sum = (of: (part: KeyGradients) => number) => parts.reduce((total, part) => total + of(part), 0);
    const scale = 2 * temperature;
    const dQueries = parts.map(({ dq_RD }) => {
      const scaled_RD = tf.mul(dq_RD, scale);
      dq_RD.dispose();
      return scaled_RD;
    });
    return {
      dOutputs: [...dQueries, null, null],
      lossSum: scale * sum(({ lossSum }) => lossSum),
      dScalars: [],
      metricSums: [
        sum(({ firstCount }) => firstCount) / VIEWS.length,
        sum(({ positiveSimilaritySum }) => positiveSimilaritySum) / VIEWS.length,
      ],
    };
  }

  afterUpdate({ step }: FinishedStep): void {
    const { engine, model } = this.#modules;
    model.follow(engine, keyMomentum(step + 1, this.#options));
  }

  similarityScale(): number {
    return 1 / this.#options.temperature;
  }
}
