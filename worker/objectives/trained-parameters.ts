import {
  clozeOf,
  type LossConfig,
  maeOf,
  objectiveParts,
  rotationPairsOf,
  type SingleObjective,
} from '../../common/config/loss-config.ts';
import { type MocoObjective, type MocoOptions, mocoOptions } from '../../common/config/moco-config.ts';
import type { ModelConfig, RunConfig } from '../../common/config/run-config.ts';
import { isVit, type VisionConfig } from '../../common/config/vision-config.ts';
import { parameterSpecs } from '../../models/clip/parameter-shapes.ts';
import type { ParameterSpec } from '../../models/parameter-spec.ts';
import { clozeParameterSpecs } from '../../models/text/cloze-shapes.ts';
import { newBackbone } from '../../models/vision/backbone.ts';
import { maeParameterSpecs } from '../../models/vision/mae-shapes.ts';
import { type HeadConfig, viewParameterSpecs } from '../../models/vision/view-shapes.ts';
import { type ObjectiveChoice, QUARTER_TURNS } from './objective-inputs.ts';

/** The head that an objective without captions puts on the backbone; the schema has made sure that a classifier has classes. */
export function headOf(objective: SingleObjective, loss: LossConfig, { vision }: ModelConfig): HeadConfig {
  const { classes = 0, projection } = loss;
  const { featureWidth } = newBackbone(vision);
  switch (objective) {
    case 'supervised':
      return { kind: 'classifier', classes: typeof classes === 'number' ? classes : classes.length };
    case 'rotation':
      return { kind: 'classifier', classes: QUARTER_TURNS };
    case 'rotation-pairs': {
      const { combine, hidden = featureWidth } = rotationPairsOf(loss);
      return { kind: 'pair-classifier', classes: QUARTER_TURNS, combine, hidden };
    }
    case 'moco-v2':
    case 'moco-v3':
      return mocoHead(objective, mocoOptions(objective, loss.moco), vision);
    default:
      return { kind: 'projection', ...projection, hidden: projection.hidden ?? featureWidth };
  }
}

/** What the keys of that head begin with; where several objectives share a backbone, each has its own. */
export function headKeyOf(part: SingleObjective, { objective }: Pick<RunConfig, 'objective'>): string {
  return objective === 'joint' ? `${part}.head` : 'head';
}

/**
 * v2: one or two layers. v3 (`moco/builder.py`): a projector that ends in batch norm and a predictor of two layers, which ends in one too on
 * a ViT but not on a ResNet, whose projector has two layers instead of three.
 */
function mocoHead(objective: MocoObjective, options: MocoOptions, vision: VisionConfig): HeadConfig {
  const { hidden = newBackbone(vision).featureWidth, width: outputs, batchNorm } = options;
  if (objective === 'moco-v2') {
    const layers = options.head === 'linear' ? 1 : 2;
    return { kind: 'moco', projector: { layers, hidden, outputs, batchNorm, lastNorm: false } };
  }
  const shape = { hidden, outputs, batchNorm };
  const { layers = isVit(vision) ? 3 : 2 } = options;
  return {
    kind: 'moco',
    projector: { ...shape, layers, lastNorm: batchNorm },
    predictor: { ...shape, layers: 2, lastNorm: batchNorm && isVit(vision) },
  };
}

/** The key encoder's: without the predictor. */
export function keyHeadOf(head: HeadConfig): HeadConfig {
  return head.kind === 'moco' ? { kind: 'moco', projector: head.projector } : head;
}

/** Every parameter that a run trains, in order, without allocating one. */
export function parameterSpecsFor(config: ObjectiveChoice, model: ModelConfig): ParameterSpec[] {
  const all = objectiveParts(config).flatMap(({ objective }) => partSpecs(objective, config, model));
  return [...new Map(all.map((spec) => [spec.name, spec])).values()];
}

function partSpecs(part: SingleObjective, config: ObjectiveChoice, model: ModelConfig): ParameterSpec[] {
  switch (part) {
    case 'clip':
    case 'siglip':
      return parameterSpecs(model, 0);
    case 'cloze':
      return clozeParameterSpecs(model, clozeOf(config.loss));
    case 'mae':
      return maeParameterSpecs(model.vision, maeOf(config.loss).decoder);
    default:
      return viewParameterSpecs(model.vision, headOf(part, config.loss, model), headKeyOf(part, config));
  }
}
