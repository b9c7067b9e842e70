import { isMoco, type MocoObjective, type MocoOptions, mocoOptions } from '../../common/config/moco-config.ts';
import type { ModelConfig, RunConfig } from '../../common/config/run-config.ts';
import { isVit, type VisionConfig } from '../../common/config/vision-config.ts';
import { parameterSpecs } from '../../models/clip/parameter-shapes.ts';
import type { ParameterSpec } from '../../models/parameter-spec.ts';
import { newBackbone } from '../../models/vision/backbone.ts';
import { type HeadConfig, viewParameterSpecs } from '../../models/vision/view-shapes.ts';
import { OBJECTIVE_INPUTS } from './objective-inputs.ts';

/** The head that an objective without captions puts on the backbone; the schema has made sure that a classifier has classes. */
export function headOf(
  { objective, loss }: Pick<RunConfig, 'objective' | 'loss'>,
  { vision }: ModelConfig,
): HeadConfig {
  const { classes = 0, projection } = loss;
  if (objective === 'supervised') {
    return { kind: 'classifier', classes: typeof classes === 'number' ? classes : classes.length };
  }
  const { featureWidth } = newBackbone(vision);
  if (isMoco(objective)) return mocoHead(objective, mocoOptions(objective, loss.moco), vision);
  return { kind: 'projection', ...projection, hidden: projection.hidden ?? featureWidth };
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
export function parameterSpecsFor(config: Pick<RunConfig, 'objective' | 'loss'>, model: ModelConfig): ParameterSpec[] {
  if (OBJECTIVE_INPUTS[config.objective].captions) return parameterSpecs(model, 0);
  return viewParameterSpecs(model.vision, headOf(config, model));
}
