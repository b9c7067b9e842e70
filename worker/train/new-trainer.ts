import type { ModelConfig, RunConfig } from '../../common/config/run-config.ts';
import type { Engine } from '../../engine/index.ts';
import { parameterGroups } from '../../models/parameter-groups.ts';
import { newObjective } from '../objectives/new-objective.ts';
import type { TrainedModel } from '../objectives/objective.ts';
import { LaneTrainer } from './lane-trainer.ts';

/** What a run's config says about the model and its training; the rest of the config is of no concern to the numerics. */
export interface TrainingConfig {
  readonly seed: number;
  readonly objective: RunConfig['objective'];
  readonly loss: RunConfig['loss'];
  readonly data: Pick<RunConfig['data'], 'mean' | 'std'>;
  readonly train: RunConfig['train'];
}

/** A model with weights from the seed and its trainer, on the current engine. The caller disposes both. */
export function newTrainer(
  config: TrainingConfig,
  modelConfig: ModelConfig,
  engine: Engine,
): { readonly model: TrainedModel; readonly trainer: LaneTrainer } {
  const { data, train } = config;
  const { model, objective } = newObjective(config, modelConfig, engine);
  const { weightDecay, decayRule, gradClipNorm } = train.optimizer;
  const trainer = new LaneTrainer(
    {
      globalBatch: train.globalBatch,
      laneCount: train.lanes,
      imageSide: modelConfig.vision.imageSize,
      mean: data.mean,
      std: data.std,
      precision: train.precision,
      gradClipNorm,
      nonFinite: train.nonFinite,
      optimizer: train.optimizer,
      weightDecays: parameterGroups(model.parameters, decayRule).map((decayed) => (decayed ? weightDecay : 0)),
    },
    { engine, model, objective },
  );
  return { model, trainer };
}
