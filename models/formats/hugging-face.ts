import path from 'node:path';
import { z } from 'zod';
import { CoveyError } from '../../common/errors.ts';
import { parameterShapes } from '../clip/parameter-shapes.ts';
import { resolveModelConfig } from '../model-config.ts';
import { fromHuggingFace, toHuggingFace } from './hugging-face-keys.ts';
import { type ExportedModel, parseConfig, readModelFile, writeFiles } from './open-clip.ts';
import { readSafetensors, writeSafetensors } from './safetensors.ts';
import { type ImportedModel, plainWeights, shapedWeights } from './weights.ts';

const CONFIG_FILE = 'config.json';
const WEIGHTS_FILE = 'model.safetensors';
const PREPROCESSOR_FILE = 'preprocessor_config.json';
const LAYER_NORM_EPS = 1e-5;

/**
 * Writes a folder that `CLIPModel.from_pretrained(DIR)`, `CLIPProcessor.from_pretrained(DIR)` and transformers.js's tokenizer load.
 * @returns the paths written
 * @throws CoveyError UNSUPPORTED for a model with a logit bias (SigLIP)
 */
export async function exportHf(dir: string, model: ExportedModel): Promise<string[]> {
  if (model.config.initLogitBias !== undefined) {
    throw new CoveyError(
      'UNSUPPORTED',
      'Cannot export to transformers: its CLIPModel has no logit bias, this model has one; export to open_clip',
    );
  }
  const weights = writeSafetensors(toHuggingFace(shapedWeights(model.config, model.weights)));
  const pretty = (value: unknown) => `${JSON.stringify(value, null, 2)}\n`;
  return writeFiles(dir, {
    [WEIGHTS_FILE]: weights,
    [CONFIG_FILE]: pretty(hfConfig(model)),
    [PREPROCESSOR_FILE]: pretty(hfPreprocessorConfig(model)),
    ...model.tokenizer.files(),
  });
}

/**
 * The content of config.json. `hidden_act` and `eos_token_id` are written because transformers' defaults are quick_gelu and 2, and 2
 * means something else (argmax pooling).
 */
export function hfConfig({ config, tokenizer }: Pick<ExportedModel, 'config' | 'tokenizer'>) {
  const { vision, text } = config;
  const shared = {
    hidden_act: config.quickGelu ? 'quick_gelu' : 'gelu',
    layer_norm_eps: LAYER_NORM_EPS,
    attention_dropout: 0,
    projection_dim: config.embedDim,
  };
  return {
    architectures: ['CLIPModel'],
    model_type: 'clip',
    projection_dim: config.embedDim,
    logit_scale_init_value: 2.6592,
    dtype: 'float32',
    torch_dtype: 'float32',
    text_config: {
      model_type: 'clip_text_model',
      vocab_size: text.vocabSize,
      hidden_size: text.width,
      intermediate_size: text.width * text.mlpRatio,
      num_hidden_layers: text.layers,
      num_attention_heads: text.heads,
      max_position_embeddings: text.contextLength,
      bos_token_id: tokenizer.bosId,
      eos_token_id: tokenizer.eosId,
      pad_token_id: tokenizer.eosId,
      ...shared,
    },
    vision_config: {
      model_type: 'clip_vision_model',
      hidden_size: vision.width,
      intermediate_size: vision.width * vision.mlpRatio,
      num_hidden_layers: vision.layers,
      num_attention_heads: vision.width / vision.headWidth,
      num_channels: 3,
      image_size: vision.imageSize,
      patch_size: vision.patchSize,
      ...shared,
    },
  };
}

/** The content of preprocessor_config.json: shortest edge, bicubic (3), centre crop, RGB, mean and std. */
export function hfPreprocessorConfig({ config, preprocess }: Pick<ExportedModel, 'config' | 'preprocess'>) {
  const side = config.vision.imageSize;
  return {
    image_processor_type: 'CLIPImageProcessor',
    feature_extractor_type: 'CLIPFeatureExtractor',
    do_convert_rgb: true,
    do_resize: true,
    size: { shortest_edge: side },
    resample: 3,
    do_center_crop: true,
    crop_size: { height: side, width: side },
    do_rescale: true,
    rescale_factor: 1 / 255,
    do_normalize: true,
    image_mean: preprocess.mean,
    image_std: preprocess.std,
  };
}

const tower = {
  hidden_size: z.int().positive(),
  intermediate_size: z.int().positive(),
  num_hidden_layers: z.int(),
  num_attention_heads: z.int().positive(),
  hidden_act: z.enum(['gelu', 'quick_gelu']).default('quick_gelu'),
  layer_norm_eps: z.literal(LAYER_NORM_EPS).default(LAYER_NORM_EPS),
};

/** transformers leaves most defaults of ViT-B/32 out of its files; here the sizes must be there. */
const configSchema = z
  .object({
    model_type: z.literal('clip'),
    projection_dim: z.int(),
    text_config: z.object({ ...tower, vocab_size: z.int(), max_position_embeddings: z.int() }),
    vision_config: z.object({
      ...tower,
      num_channels: z.literal(3).default(3),
      image_size: z.int(),
      patch_size: z.int(),
    }),
  })
  .refine(({ text_config, vision_config }) => text_config.hidden_act === vision_config.hidden_act, {
    path: ['text_config', 'hidden_act'],
    message: 'both towers must have the same activation',
  });

const channels = z.tuple([z.number(), z.number(), z.number()]);
const preprocessorSchema = z.object({ image_mean: channels, image_std: channels });

/**
 * Loads a folder in transformers' CLIPModel layout.
 * @throws CoveyError UNSUPPORTED for another architecture, DATA_CORRUPT where weights and config disagree, NOT_FOUND for a missing file
 */
export async function importHf(dir: string): Promise<ImportedModel> {
  const parsed = parseConfig(configSchema, await readModelFile(dir, CONFIG_FILE), path.join(dir, CONFIG_FILE));
  const { text_config: text, vision_config: vision } = parsed;
  const config = resolveModelConfig({
    embedDim: parsed.projection_dim,
    quickGelu: vision.hidden_act === 'quick_gelu',
    vision: {
      imageSize: vision.image_size,
      patchSize: vision.patch_size,
      width: vision.hidden_size,
      layers: vision.num_hidden_layers,
      headWidth: vision.hidden_size / vision.num_attention_heads,
      mlpRatio: vision.intermediate_size / vision.hidden_size,
    },
    text: {
      contextLength: text.max_position_embeddings,
      vocabSize: text.vocab_size,
      width: text.hidden_size,
      heads: text.num_attention_heads,
      layers: text.num_hidden_layers,
      mlpRatio: text.intermediate_size / text.hidden_size,
    },
  });
  const preprocessorFile = path.join(dir, PREPROCESSOR_FILE);
  const preprocessor = parseConfig(preprocessorSchema, await readModelFile(dir, PREPROCESSOR_FILE), preprocessorFile);
  const { tensors } = readSafetensors(await readModelFile(dir, WEIGHTS_FILE));
  const names = parameterShapes(config).map(({ name }) => name);
  return {
    config,
    weights: plainWeights(config, fromHuggingFace(tensors, names), WEIGHTS_FILE),
    preprocess: { mean: preprocessor.image_mean, std: preprocessor.image_std },
  };
}
