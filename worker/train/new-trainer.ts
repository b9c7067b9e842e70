import type { ModelConfig, RunConfig } from '../../common/config/run-config.ts';
import type { Engine } from '../../engine/index.ts';
import { ClipModel } from '../../models/clip/clip-model.ts';
import { parameterRules } from '../../models/parameter-rules.ts';
import { LaneTrainer } from './lane-trainer.ts';
import { optimizerSpec } from './optimizer-spec.ts';

/** What a run's config says about the model and its training; the rest of the config is of no concern to the numerics. */
export interface TrainingConfig {
  readonly seed: number;
  readonly data: Pick<RunConfig['data'], 'mean' | 'std'>;
  readonly train: RunConfig['train'];
}

/** A model with weights from the seed and its trainer, on the current engine. The caller disposes both. */
export function newTrainer(
  { seed, data, train }: TrainingConfig,
  modelConfig: ModelConfig,
  engine: Engine,
): { readonly model: ClipModel; readonly trainer: LaneTrainer } {
  const model = new ClipModel(modelConfig, {
    seed,
    precision: train.precision,
    logitScaleInit: train.logitScaleInit,
    recompute: train.recompute,
  });
  const trainer = new LaneTrainer(
    {
      globalBatch: train.globalBatch,
      laneCount: train.lanes,
      imageSide: modelConfig.vision.imageSize,
      embedDim: modelConfig.embedDim,
      mean: data.mean,
      std: data.std,
      precision: train.precision,
      gradClipNorm: train.optimizer.gradClipNorm,
      nonFinite: train.nonFinite,
      logitScaleMax: train.logitScaleMax,
      updater: {
        optimizer: optimizerSpec(train.optimizer),
        rules: parameterRules(model.parameters, train),
        ema: train.ema,
      },
    },
    { engine, model },
  );
  return { model, trainer };
}
