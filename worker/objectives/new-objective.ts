import { type MocoObjective, mocoOptions } from '../../common/config/moco-config.ts';
import type { ModelConfig, RunConfig } from '../../common/config/run-config.ts';
import type { Engine } from '../../engine/index.ts';
import { ClipModel } from '../../models/clip/clip-model.ts';
import { KeyQueue } from '../../models/vision/key-queue.ts';
import { MomentumModel } from '../../models/vision/momentum-model.ts';
import { ViewModel } from '../../models/vision/view-model.ts';
import { ClipObjective } from './clip.ts';
import { MocoV2Objective } from './moco-v2.ts';
import { MocoV3Objective } from './moco-v3.ts';
import type { Objective, TrainedModel } from './objective.ts';
import { SIGLIP_LOGIT_SCALE_INIT, SiglipObjective } from './siglip.ts';
import { SimclrObjective } from './simclr.ts';
import { SupconObjective } from './supcon.ts';
import { SupervisedObjective } from './supervised.ts';
import { headOf, keyHeadOf } from './trained-parameters.ts';

/** What of a run's config decides on its model and objective. */
export type ObjectiveConfig = Pick<RunConfig, 'seed' | 'objective' | 'loss' | 'train'>;

/** A model with weights from the seed, and the objective that trains it. The caller disposes the model. */
export function newObjective(
  config: ObjectiveConfig,
  modelConfig: ModelConfig,
  engine: Engine,
): { readonly model: TrainedModel; readonly objective: Objective } {
  const { objective: name, loss, train } = config;
  switch (name) {
    case 'clip': {
      const model = newClipModel(config, modelConfig, train.logitScaleInit);
      return { model, objective: new ClipObjective(train, { engine, model }) };
    }
    case 'siglip': {
      const model = newClipModel(config, modelConfig, train.logitScaleInit ?? SIGLIP_LOGIT_SCALE_INIT);
      return { model, objective: new SiglipObjective(train, { engine, model }) };
    }
    case 'simclr': {
      const model = newViewModel(config, modelConfig);
      return { model, objective: new SimclrObjective(loss, { engine, model }) };
    }
    case 'supcon': {
      const model = newViewModel(config, modelConfig);
      return { model, objective: new SupconObjective(loss, { engine, model }) };
    }
    case 'moco-v2':
    case 'moco-v3': {
      const options = { ...mocoOptions(name, loss.moco), steps: train.steps };
      const model = newMomentumModel(name, config, modelConfig);
      const modules = { engine, model };
      return {
        model,
        objective: name === 'moco-v2' ? new MocoV2Objective(options, modules) : new MocoV3Objective(options, modules),
      };
    }
    case 'supervised': {
      const model = newViewModel(config, modelConfig);
      return { model, objective: new SupervisedObjective(loss, { engine, model }) };
    }
  }
}

function newClipModel({ seed, train }: ObjectiveConfig, modelConfig: ModelConfig, logitScaleInit: number | undefined) {
  const { precision, recompute, patchDropout } = train;
  return new ClipModel(modelConfig, {
    seed,
    precision,
    recompute,
    patchDropout,
    ...(logitScaleInit === undefined ? {} : { logitScaleInit }),
  });
}

/** Both encoders begin with the same weights, drawn from the seed by name. Nothing of the key encoder waits for a backward. */
function newMomentumModel(name: MocoObjective, config: ObjectiveConfig, modelConfig: ModelConfig): MomentumModel {
  const { precision } = config.train;
  const { vision, quickGelu } = modelConfig;
  const { seed, loss } = config;
  const query = newViewModel(config, modelConfig);
  const key = new ViewModel(vision, keyHeadOf(query.head), { seed, precision, quickGelu, trainable: false });
  if (name === 'moco-v3') return new MomentumModel({ query, key });
  const { queue, width } = mocoOptions(name, loss.moco);
  return new MomentumModel({ query, key, queue: new KeyQueue({ keys: queue, width, seed }) });
}

function newViewModel(config: ObjectiveConfig, modelConfig: ModelConfig): ViewModel {
  const { precision, recompute, patchDropout } = config.train;
  const { vision, quickGelu } = modelConfig;
  const options = { seed: config.seed, precision, quickGelu, recompute, patchDropout };
  return new ViewModel(vision, headOf(config, modelConfig), options);
}
