import type { RunConfig } from '../../common/config/run-config.ts';
import { parameterShapes } from '../../models/clip/parameter-shapes.ts';
import { resolveModelConfig } from '../../models/model-config.ts';
import { parameterRules } from '../../models/parameter-rules.ts';

/**
 * Whether the rules by parameter (`train.groups`, `lock`, `layerDecay`) fit the run's model. Pure: asked before a run is submitted.
 *
 * @throws CONFIG_INVALID naming each rule that does not
 */
export function checkParameterRules(config: RunConfig): void {
  parameterRules(parameterShapes(resolveModelConfig(config.model)), config.train);
}
