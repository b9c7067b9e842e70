import type { Tensor, Tensor1D, Tensor2D } from '../../engine/index.ts';
import { keyGradients } from './key-contrast.ts';
import { keyMomentum, MOCO_METRICS, type MocoModules, type MocoObjectiveOptions, viewOf } from './moco.ts';
import type { EncoderInput, FinishedStep, GlobalBatch, Lane, LaneGradients, Objective } from './objective.ts';
import { OBJECTIVE_INPUTS } from './objective-inputs.ts';

/**
 * MoCo v1 and v2 (He et al. 2020, algorithm 1; Chen et al. 2020b): a view's query is told apart by the key of the other view from the keys
 * of earlier batches, a queue. The two versions differ in head, temperature, augmentation and schedule, all of which are options.
 *
 * Algorithm 1 moves the key encoder before it encodes keys; here it moves after the update of the step before, with the same weights. The
 * queue takes the batch's keys, of all lanes in lane order, once the step is applied. Shapes: R samples of a lane, D width.
 */
export class MocoV2Objective implements Objective {
  readonly inputs = OBJECTIVE_INPUTS['moco-v2'];
  readonly outputs: Objective['outputs'];
  readonly exchanged = [];
  readonly scalars = [];
  readonly metrics = MOCO_METRICS;
  readonly #options: MocoObjectiveOptions;
  readonly #modules: MocoModules;

  constructor(options: MocoObjectiveOptions, modules: MocoModules) {
    this.#options = options;
    this.#modules = modules;
    const width = modules.model.query.outputWidth;
    this.outputs = [
      { name: 'query', perSample: 1, width, gathered: false },
      { name: 'key', perSample: 1, width, gathered: true },
    ];
  }

  encode({ pixels_BHWC, samples, dropSeeds: seeds }: EncoderInput): Tensor[] {
    const { model } = this.#modules;
    const key_RD = model.keys(viewOf(pixels_BHWC, 1, samples));
    return [model.query.project(viewOf(pixels_BHWC, 0, samples), { training: true, seeds }), key_RD];
  }

  exchange(): void {}

  laneGradients(_batch: GlobalBatch, { outputs: [query, key] }: Lane, _exchanged: readonly Tensor1D[]): LaneGradients {
    const { engine, model } = this.#modules;
    const { dq_RD, lossSum, firstCount, positiveSimilaritySum } = keyGradients(
      engine,
      {
        q_RD: query as Tensor2D,
        key_RD: key as Tensor2D,
        others_KD: model.queue!.keys_KD,
        ownRow: undefined,
      },
      this.#options.temperature,
    );
    return { dOutputs: [dq_RD, null], lossSum, dScalars: [], metricSums: [firstCount, positiveSimilaritySum] };
  }

  afterUpdate({ step, gathered: [keys] }: FinishedStep): void {
    const { engine, model } = this.#modules;
    model.queue!.enqueue(keys!);
    model.follow(engine, keyMomentum(step + 1, this.#options));
  }

  similarityScale(): number {
    return 1 / this.#options.temperature;
  }
}
