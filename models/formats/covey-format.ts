import { z } from 'zod';
import { modelConfigSchema } from '../../common/config/run-config.ts';
import { visionConfigSchema } from '../../common/config/vision-config.ts';
import { resolveModelConfig } from '../model-config.ts';
import { checkedVision, type ModelDescription } from './model-description.ts';
import { parseConfig, prettyJson, writeFiles } from './model-files.ts';
import { type Pretrained, shapesOf } from './pretrained.ts';
import { writeSafetensors } from './safetensors.ts';
import { shapedWeights } from './weights.ts';

/** covey's own layout: what no other format has words for (ResNets, ViTs in other layouts, fixed positions) is kept as run.yaml says it. */
export const COVEY_CONFIG = 'covey_model.json';
export const COVEY_WEIGHTS = 'covey_model.safetensors';

/** Writes a folder from which covey makes the model again, whatever it is. Keys are open_clip's. @returns the paths written */
export async function exportCovey(dir: string, model: Pretrained): Promise<string[]> {
  const { kind, preprocess } = model;
  const described = kind === 'clip' ? { model: model.config } : { vision: model.vision, quickGelu: model.quickGelu };
  return writeFiles(dir, {
    [COVEY_WEIGHTS]: writeSafetensors(shapedWeights(shapesOf(model), model.weights)),
    [COVEY_CONFIG]: prettyJson({ version: 1, kind, ...described, preprocess }),
    ...(kind === 'clip' ? model.tokenizer.files() : {}),
  });
}

const channels = z.tuple([z.number(), z.number(), z.number()]);
const shared = { version: z.literal(1), preprocess: z.strictObject({ mean: channels, std: channels }) };

const configSchema = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('clip'), ...shared, model: modelConfigSchema }),
  z.strictObject({ kind: z.literal('backbone'), ...shared, vision: visionConfigSchema, quickGelu: z.boolean() }),
]);

/** Reads the config that `exportCovey` wrote. @throws CoveyError UNSUPPORTED for another version, CONFIG_INVALID for sizes that do not fit */
export function readCoveyConfig(text: string, file: string): ModelDescription {
  const parsed = parseConfig(configSchema, text, file);
  const { preprocess } = parsed;
  if (parsed.kind === 'clip') {
    return { kind: 'clip', config: resolveModelConfig(parsed.model), preprocess, tokenizer: 'beside' };
  }
  return { kind: 'backbone', vision: checkedVision(parsed.vision), quickGelu: parsed.quickGelu, preprocess };
}
