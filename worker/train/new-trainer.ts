import type { ModelConfig, RunConfig } from '../../common/config/run-config.ts';
import { batchNormOf } from '../../common/config/vision-config.ts';
import type { Engine } from '../../engine/index.ts';
import { parameterRules } from '../../models/parameter-rules.ts';
import { newObjective } from '../objectives/new-objective.ts';
import type { Objective, TrainedModel } from '../objectives/objective.ts';
import { assignInitialWeights, type InitialWeights } from './initial-weights.ts';
import { LaneTrainer } from './lane-trainer.ts';
import { optimizerSpec } from './optimizer-spec.ts';

/** What a run's config says about the model and its training; the rest of the config is of no concern to the numerics. */
export interface TrainingConfig {
  readonly seed: number;
  readonly objective: RunConfig['objective'];
  readonly loss: RunConfig['loss'];
  readonly data: Pick<RunConfig['data'], 'mean' | 'std'>;
  readonly train: RunConfig['train'];
}

/** A model with weights from the seed, or where given with those, and its trainer, on the current engine. The caller disposes both. */
export function newTrainer(
  config: TrainingConfig,
  modelConfig: ModelConfig,
  engine: Engine,
  weights?: InitialWeights,
): { readonly model: TrainedModel; readonly objective: Objective; readonly trainer: LaneTrainer } {
  const { data, train } = config;
  const { model, objective } = newObjective(config, modelConfig, engine);
  // Before the trainer is made: a moving average begins with what it finds.
  if (weights) assignInitialWeights(model, weights);
  const trainer = new LaneTrainer(
    {
      globalBatch: train.globalBatch,
      laneCount: train.lanes,
      imageSide: modelConfig.vision.imageSize,
      mean: data.mean,
      std: data.std,
      precision: train.precision,
      gradClipNorm: train.optimizer.gradClipNorm,
      nonFinite: train.nonFinite,
      gradCache: train.gradCache || train.microBatch === 'auto',
      synchronised: batchNormOf(modelConfig.vision) === 'sync',
      microBatch: train.microBatch === 'auto' ? undefined : train.microBatch,
      updater: {
        optimizer: optimizerSpec(train.optimizer),
        rules: parameterRules(model.parameters, train),
        ema: train.ema,
      },
    },
    { engine, model, objective },
  );
  return { model, objective, trainer };
}
