import type { RunConfig } from '../../common/config/run-config.ts';
import { resolveModelConfig } from '../../models/model-config.ts';
import { parameterRules } from '../../models/parameter-rules.ts';
import { parameterSpecsFor } from '../objectives/trained-parameters.ts';

/**
 * Whether the rules by parameter (`train.groups`, `lock`, `layerDecay`) fit the run's model. Pure: asked before a run is submitted.
 *
 * @throws CONFIG_INVALID naming each rule that does not
 */
export function checkParameterRules(config: RunConfig): void {
  parameterRules(parameterSpecsFor(config, resolveModelConfig(config.model)), config.train);
}
