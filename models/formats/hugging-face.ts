import { z } from 'zod';
import { resolveModelConfig } from '../model-config.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { clipVitMisfit, isSiglipVit, requireClipVit, vitLayout } from '../vision/vit-layout.ts';
import { toHuggingFace } from './hugging-face-keys.ts';
import { checkedVision, type ModelDescription } from './model-description.ts';
import { parseConfig, prettyJson, writeFiles } from './model-files.ts';
import {
  type Pretrained,
  type PretrainedClip,
  type PretrainedSettings,
  shapesOf,
  usesQuickGelu,
  visionOf,
} from './pretrained.ts';
import { writeSafetensors } from './safetensors.ts';
import { CLIP_PREPROCESS, shapedWeights } from './weights.ts';

export const HF_CONFIG = 'config.json';
export const HF_WEIGHTS = ['model.safetensors', 'pytorch_model.bin'] as const;
export const HF_PREPROCESSOR = 'preprocessor_config.json';
const LAYER_NORM_EPS = 1e-5;

/**
 * Writes a folder that `CLIPModel.from_pretrained(DIR)`, `CLIPProcessor.from_pretrained(DIR)` and transformers.js's tokenizer load; for
 * a backbone one that `CLIPVisionModel.from_pretrained(DIR)`, or in SigLIP's layout `SiglipVisionModel`, and `CLIPImageProcessor` do.
 * @returns the paths written
 */
export async function exportHf(dir: string, model: Pretrained): Promise<string[]> {
  const weights = writeSafetensors(toHuggingFace(shapedWeights(shapesOf(model), model.weights)));
  return writeFiles(dir, { [HF_WEIGHTS[0]]: weights, ...hfSettings(model) });
}

/** The files beside the weights, by name: what transformers and transformers.js read to prepare pictures and captions. */
export function hfSettings(model: PretrainedSettings): Record<string, string> {
  return {
    [HF_CONFIG]: prettyJson(hfConfig(model)),
    [HF_PREPROCESSOR]: prettyJson(hfPreprocessorConfig(model)),
    ...(model.kind === 'clip' ? model.tokenizer.files() : {}),
  };
}

/** Why transformers has no model of this kind, or undefined where it has. */
export function hfMisfit(model: PretrainedSettings): string | undefined {
  const vision = visionOf(model);
  if (model.kind === 'clip') {
    if (isSiglipVit(vision)) {
      return "transformers' SiglipModel projects no pictures and reads texts in both directions: hand on the image tower alone (--image-tower)";
    }
    const hasBias = model.config.initLogitBias !== undefined;
    return hasBias ? "transformers' CLIPModel has no logit bias, this model has one" : clipVitMisfit(vision);
  }
  if (!isSiglipVit(vision)) return clipVitMisfit(vision);
  return model.quickGelu
    ? "transformers' SiglipVisionModel has one activation, here the pool's is exact GELU and the blocks' is quick GELU"
    : undefined;
}

/** The same beside graphs, which need no config.json of a tower that transformers does not know. */
export function graphSettings(model: PretrainedSettings): Record<string, string> {
  if (clipVitMisfit(visionOf(model)) === undefined || hfMisfit(model) === undefined) return hfSettings(model);
  return {
    [HF_PREPROCESSOR]: prettyJson(hfPreprocessorConfig(model)),
    ...(model.kind === 'clip' ? model.tokenizer.files() : {}),
  };
}

/**
 * The content of config.json. `hidden_act` and `eos_token_id` are written because transformers' defaults are quick_gelu and 2, and 2
 * means something else (argmax pooling).
 */
export function hfConfig(model: PretrainedSettings) {
  const dtype = { dtype: 'float32', torch_dtype: 'float32' };
  if (model.kind === 'backbone') {
    const architecture = isSiglipVit(model.vision) ? 'SiglipVisionModel' : 'CLIPVisionModel';
    return { architectures: [architecture], ...visionConfig(model), ...dtype };
  }
  const { config, tokenizer } = model;
  return {
    architectures: ['CLIPModel'],
    model_type: 'clip',
    projection_dim: config.embedDim,
    logit_scale_init_value: 2.6592,
    ...dtype,
    text_config: textConfig(config, tokenizer),
    vision_config: visionConfig(model),
  };
}

function textConfig({ text, embedDim, quickGelu }: PretrainedClip['config'], tokenizer: Tokenizer) {
  return {
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
    ...sharedConfig(quickGelu),
    projection_dim: embedDim,
  };
}

function visionConfig(model: PretrainedSettings) {
  const tower = visionOf(model);
  const isSiglip = isSiglipVit(tower);
  const vision = isSiglip ? tower : requireClipVit(tower, 'export to transformers');
  return {
    model_type: isSiglip ? 'siglip_vision_model' : 'clip_vision_model',
    hidden_size: vision.width,
    intermediate_size: vision.width * vision.mlpRatio,
    num_hidden_layers: vision.layers,
    num_attention_heads: vision.width / vision.headWidth,
    num_channels: 3,
    image_size: vision.imageSize,
    patch_size: vision.patchSize,
    ...sharedConfig(usesQuickGelu(model), vitLayout(vision).layerNormEps),
    ...(model.kind === 'clip' ? { projection_dim: model.config.embedDim } : {}),
  };
}

function sharedConfig(quickGelu: boolean, eps = LAYER_NORM_EPS) {
  return { hidden_act: quickGelu ? 'quick_gelu' : 'gelu', layer_norm_eps: eps, attention_dropout: 0 };
}

/** The content of preprocessor_config.json: shortest edge, bicubic (3), centre crop, RGB, mean and std. */
export function hfPreprocessorConfig(model: PretrainedSettings) {
  const side = visionOf(model).imageSize;
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
    image_mean: model.preprocess.mean,
    image_std: model.preprocess.std,
  };
}

// transformers leaves out of its files what equals the defaults of CLIPTextConfig and CLIPVisionConfig; these are them.
const shared = {
  hidden_act: z.enum(['gelu', 'quick_gelu']).default('quick_gelu'),
  layer_norm_eps: z.literal(LAYER_NORM_EPS).default(LAYER_NORM_EPS),
  num_hidden_layers: z.int().positive().default(12),
};

const textConfigSchema = z.object({
  ...shared,
  vocab_size: z.int().default(49_408),
  hidden_size: z.int().positive().default(512),
  intermediate_size: z.int().positive().default(2048),
  num_attention_heads: z.int().positive().default(8),
  max_position_embeddings: z.int().default(77),
});

const visionSizes = {
  num_hidden_layers: shared.num_hidden_layers,
  hidden_size: z.int().positive().default(768),
  intermediate_size: z.int().positive().default(3072),
  num_attention_heads: z.int().positive().default(12),
  num_channels: z.literal(3).default(3),
  image_size: z.int().default(224),
};

const visionConfigSchema = z.object({ ...visionSizes, ...shared, patch_size: z.int().default(32) });

/** SiglipVisionConfig's defaults. Its default activation, the approximation by tanh, covey has not. */
const siglipVisionSchema = z.object({
  model_type: z.literal('siglip_vision_model'),
  ...visionSizes,
  patch_size: z.int().default(16),
  layer_norm_eps: z.number().positive().default(1e-6),
  hidden_act: z.literal('gelu', {
    error: ({ input }) => `must be gelu, is ${input === undefined ? 'gelu_pytorch_tanh by default' : String(input)}`,
  }),
});

const clipSchema = z
  .object({
    model_type: z.literal('clip'),
    projection_dim: z.int().default(512),
    text_config: textConfigSchema.prefault({}),
    vision_config: visionConfigSchema.prefault({}),
  })
  .refine(({ text_config, vision_config }) => text_config.hidden_act === vision_config.hidden_act, {
    path: ['text_config', 'hidden_act'],
    message: 'both towers must have the same activation',
  });

const configSchema = z.discriminatedUnion(
  'model_type',
  [clipSchema, visionConfigSchema.extend({ model_type: z.literal('clip_vision_model') }), siglipVisionSchema],
  { error: ({ input }) => unknownKind(input) },
);

function unknownKind(config: unknown): string {
  const kind = typeof config === 'object' && config !== null && 'model_type' in config ? config.model_type : undefined;
  const whole = kind === 'siglip' ? ' (of SigLIP the image tower alone: its text tower reads in both directions)' : '';
  return `must be clip, clip_vision_model or siglip_vision_model${whole}`;
}

const channels = z.tuple([z.number(), z.number(), z.number()]);
const preprocessorSchema = z.object({
  image_mean: channels.default([...CLIP_PREPROCESS.mean]),
  image_std: channels.default([...CLIP_PREPROCESS.std]),
});

/** `eps` and sizes of a file in transformers' terms. */
function visionOfConfig(vision: Omit<z.infer<typeof visionConfigSchema>, 'hidden_act' | 'layer_norm_eps'>) {
  return {
    imageSize: vision.image_size,
    patchSize: vision.patch_size,
    width: vision.hidden_size,
    layers: vision.num_hidden_layers,
    headWidth: vision.hidden_size / vision.num_attention_heads,
    mlpRatio: vision.intermediate_size / vision.hidden_size,
  };
}

/**
 * Reads the config of a CLIPModel, CLIPVisionModel or SiglipVisionModel.
 * @param preprocessor the text of preprocessor_config.json, where there is one
 * @throws CoveyError UNSUPPORTED for another architecture
 */
export function readHfConfig(text: string, file: string, preprocessor: string | undefined): ModelDescription {
  const parsed = parseConfig(configSchema, text, file);
  const { image_mean: mean, image_std: std } = parseConfig(preprocessorSchema, preprocessor ?? '{}', HF_PREPROCESSOR);
  const preprocess = { mean, std };
  if (parsed.model_type === 'siglip_vision_model') {
    const vision = checkedVision({
      ...visionOfConfig(parsed),
      pooling: 'map',
      lnPre: false,
      patchBias: true,
      layerNormEps: parsed.layer_norm_eps,
    });
    return { kind: 'backbone', vision, quickGelu: false, preprocess };
  }
  if (parsed.model_type === 'clip_vision_model') {
    const vision = checkedVision(visionOfConfig(parsed));
    return { kind: 'backbone', vision, quickGelu: parsed.hidden_act === 'quick_gelu', preprocess };
  }
  const { text_config, vision_config } = parsed;
  const config = resolveModelConfig({
    embedDim: parsed.projection_dim,
    quickGelu: vision_config.hidden_act === 'quick_gelu',
    vision: visionOfConfig(vision_config),
    text: {
      contextLength: text_config.max_position_embeddings,
      vocabSize: text_config.vocab_size,
      width: text_config.hidden_size,
      heads: text_config.num_attention_heads,
      layers: text_config.num_hidden_layers,
      mlpRatio: text_config.intermediate_size / text_config.hidden_size,
    },
  });
  return { kind: 'clip', config, preprocess, tokenizer: 'beside' };
}
