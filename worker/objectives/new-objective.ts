import { clozeOf, maeOf, objectiveParts, type SingleObjective } from '../../common/config/loss-config.ts';
import { type MocoObjective, mocoOptions } from '../../common/config/moco-config.ts';
import type { ModelConfig, RunConfig } from '../../common/config/run-config.ts';
import type { Engine } from '../../engine/index.ts';
import { ClipModel } from '../../models/clip/clip-model.ts';
import type { NamedVariable, SharedVariables } from '../../models/named-variables.ts';
import { ClozeModel } from '../../models/text/cloze-model.ts';
import { KeyQueue } from '../../models/vision/key-queue.ts';
import { MaeModel } from '../../models/vision/mae-model.ts';
import type { DecoderShape } from '../../models/vision/mae-shapes.ts';
import { MomentumModel } from '../../models/vision/momentum-model.ts';
import { ViewModel } from '../../models/vision/view-model.ts';
import { ClipObjective } from './clip.ts';
import { ClozeObjective } from './cloze.ts';
import { JointModel, JointObjective, type JointPart } from './joint.ts';
import { MaeObjective } from './mae.ts';
import { MocoV2Objective } from './moco-v2.ts';
import { MocoV3Objective } from './moco-v3.ts';
import type { Objective, TrainedModel } from './objective.ts';
import { objectiveInputs } from './objective-inputs.ts';
import { RotationObjective } from './rotation.ts';
import { RotationPairsObjective } from './rotation-pairs.ts';
import { SIGLIP_LOGIT_SCALE_INIT, SiglipObjective } from './siglip.ts';
import { SimclrObjective } from './simclr.ts';
import { SupconObjective } from './supcon.ts';
import { SupervisedObjective } from './supervised.ts';
import { headKeyOf, headOf, keyHeadOf } from './trained-parameters.ts';

/** What of a run's config decides on its model and objective. */
export type ObjectiveConfig = Pick<RunConfig, 'seed' | 'objective' | 'loss' | 'train'>;

interface Made {
  readonly model: TrainedModel;
  readonly objective: Objective;
}

/** A model with weights from the seed, and the objective that trains it. The caller disposes the model. */
export function newObjective(config: ObjectiveConfig, modelConfig: ModelConfig, engine: Engine): Made {
  if (config.objective === 'joint') return newJointObjective(config, modelConfig, engine);
  return newSingleObjective(config.objective, { config, modelConfig, engine });
}

/** Its parts one after another, each on the variables of those before it. */
function newJointObjective(config: ObjectiveConfig, modelConfig: ModelConfig, engine: Engine): Made {
  const parts: JointPart[] = [];
  let shared: ReadonlyMap<string, NamedVariable> = new Map();
  for (const { objective: name, weight } of objectiveParts(config)) {
    const made = newSingleObjective(name, { config, modelConfig, engine, shared });
    const own = [...made.model.parameters, ...(made.model.buffers ?? [])];
    shared = new Map([...shared, ...own.map((one) => [one.name, one] as const)]);
    parts.push({ name, weight, ...made });
  }
  return { model: new JointModel(parts), objective: new JointObjective(parts, objectiveInputs(config)) };
}

interface SingleContext {
  readonly config: ObjectiveConfig;
  readonly modelConfig: ModelConfig;
  readonly engine: Engine;
  /** What models made before it have, in a joint objective. */
  readonly shared?: SharedVariables;
}

function newSingleObjective(name: SingleObjective, context: SingleContext): Made {
  const { config, modelConfig, engine } = context;
  const { loss, train } = config;
  switch (name) {
    case 'clip': {
      const model = newClipModel(context, train.logitScaleInit);
      return { model, objective: new ClipObjective(train, { engine, model }) };
    }
    case 'siglip': {
      const model = newClipModel(context, train.logitScaleInit ?? SIGLIP_LOGIT_SCALE_INIT);
      return { model, objective: new SiglipObjective(train, { engine, model }) };
    }
    case 'simclr': {
      const model = newViewModel(name, context);
      return { model, objective: new SimclrObjective(loss, { engine, model }) };
    }
    case 'supcon': {
      const model = newViewModel(name, context);
      return { model, objective: new SupconObjective(loss, { engine, model }) };
    }
    case 'moco-v2':
    case 'moco-v3': {
      const options = { ...mocoOptions(name, loss.moco), steps: train.steps };
      const model = newMomentumModel(name, context);
      const modules = { engine, model };
      return {
        model,
        objective: name === 'moco-v2' ? new MocoV2Objective(options, modules) : new MocoV3Objective(options, modules),
      };
    }
    case 'supervised': {
      const model = newViewModel(name, context);
      return { model, objective: new SupervisedObjective(loss, { engine, model }) };
    }
    case 'rotation': {
      const model = newViewModel(name, context);
      return { model, objective: new RotationObjective({ engine, model }) };
    }
    case 'rotation-pairs': {
      const model = newViewModel(name, context);
      return { model, objective: new RotationPairsObjective({ engine, model }) };
    }
    case 'cloze': {
      const { precision, recompute } = train;
      const options = clozeOf(loss);
      const { shared } = context;
      const model = new ClozeModel(modelConfig, {
        seed: config.seed,
        precision,
        recompute,
        tied: options.tied,
        shared,
      });
      return { model, objective: new ClozeObjective(options, { text: modelConfig.text, engine, model }) };
    }
    case 'mae': {
      const options = maeOf(loss);
      const model = newMaeModel(options.decoder, context);
      return { model, objective: new MaeObjective(options, { engine, model }) };
    }
  }
}

function newClipModel({ config, modelConfig, shared }: SingleContext, logitScaleInit: number | undefined) {
  const { precision, recompute, patchDropout } = config.train;
  return new ClipModel(modelConfig, {
    seed: config.seed,
    precision,
    recompute,
    patchDropout,
    shared,
    ...(logitScaleInit === undefined ? {} : { logitScaleInit }),
  });
}

function newMaeModel(decoder: DecoderShape, { config, modelConfig, shared }: SingleContext): MaeModel {
  const { precision, recompute } = config.train;
  const { vision, quickGelu } = modelConfig;
  return new MaeModel(vision, decoder, { seed: config.seed, precision, quickGelu, recompute, shared });
}

/** Both encoders begin with the same weights, drawn from the seed by name. Nothing of the key encoder waits for a backward. */
function newMomentumModel(name: MocoObjective, context: SingleContext): MomentumModel {
  const { config, modelConfig } = context;
  const { precision } = config.train;
  const { vision, quickGelu } = modelConfig;
  const { seed, loss } = config;
  const query = newViewModel(name, context);
  const key = new ViewModel(vision, keyHeadOf(query.head), { seed, precision, quickGelu, trainable: false });
  if (name === 'moco-v3') return new MomentumModel({ query, key });
  const { queue, width } = mocoOptions(name, loss.moco);
  return new MomentumModel({ query, key, queue: new KeyQueue({ keys: queue, width, seed }) });
}

function newViewModel(name: SingleObjective, { config, modelConfig, shared }: SingleContext): ViewModel {
  const { precision, recompute, patchDropout } = config.train;
  const { vision, quickGelu } = modelConfig;
  return new ViewModel(vision, headOf(name, config.loss, modelConfig), {
    seed: config.seed,
    precision,
    quickGelu,
    recompute,
    patchDropout,
    headKey: headKeyOf(name, config),
    shared,
  });
}
