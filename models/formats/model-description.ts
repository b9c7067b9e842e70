import type { ModelConfig, VisionConfig } from '../../common/config/run-config.ts';
import { resolveModelConfig } from '../model-config.ts';
import { presets } from '../presets.ts';
import type { PreprocessConfig } from './weights.ts';

/** What a config file says, before any weights are read. `tokenizer`: CLIP's own, or the files beside the config. */
export type ModelDescription = { readonly preprocess: PreprocessConfig } & (
  | { readonly kind: 'clip'; readonly config: ModelConfig; readonly tokenizer: 'clip' | 'beside' }
  | { readonly kind: 'backbone'; readonly vision: VisionConfig; readonly quickGelu: boolean }
);

/** An image tower whose sizes fit each other; no text tower is looked at. @throws CoveyError CONFIG_INVALID */
export function checkedVision(vision: VisionConfig): VisionConfig {
  return resolveModelConfig({ ...presets['tiny']!, vision }).vision;
}
