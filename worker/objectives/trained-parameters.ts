import { isMoco, mocoOptions } from '../../common/config/moco-config.ts';
import type { ModelConfig, RunConfig } from '../../common/config/run-config.ts';
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
  if (isMoco(objective)) {
    const { hidden = featureWidth, width } = mocoOptions(objective, loss.moco);
    return { kind: 'projection', hidden, width, batchNorm: false };
  }
  return { kind: 'projection', ...projection, hidden: projection.hidden ?? featureWidth };
}

/** Every parameter that a run trains, in order, without allocating one. */
export function parameterSpecsFor(config: Pick<RunConfig, 'objective' | 'loss'>, model: ModelConfig): ParameterSpec[] {
  if (OBJECTIVE_INPUTS[config.objective].captions) return parameterSpecs(model, 0);
  return viewParameterSpecs(model.vision, headOf(config, model));
}
