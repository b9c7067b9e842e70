import { z } from 'zod';
import type { ModelConfig, TextConfig, VisionConfig } from '../../common/config/run-config.ts';
import { resolveModelConfig } from '../model-config.ts';
import { clipVocabularySize } from '../tokenizer/clip-vocabulary.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { requireClipVit } from '../vision/vit-layout.ts';
import { checkedVision, type ModelDescription } from './model-description.ts';
import { parseConfig, prettyJson, writeFiles } from './model-files.ts';
import { type Pretrained, type PretrainedSettings, shapesOf, usesQuickGelu, visionOf } from './pretrained.ts';
import { writeSafetensors } from './safetensors.ts';
import { CLIP_PREPROCESS, shapedWeights } from './weights.ts';

/** open_clip's names (`constants.py`). */
export const OPEN_CLIP_CONFIG = 'open_clip_config.json';
export const OPEN_CLIP_WEIGHTS = ['open_clip_model.safetensors', 'open_clip_pytorch_model.bin'] as const;

/**
 * Writes a folder that `open_clip.create_model('local-dir:DIR')` loads: weights, config, and the tokenizer's files. A tokenizer other
 * than CLIP's own is announced by `hf_tokenizer_name`, for which open_clip reads the tokenizer from the folder. A backbone is written
 * under the same keys; its config has no text tower, so that open_clip cannot make a whole model of it.
 * @returns the paths written
 */
export async function exportOpenClip(dir: string, model: Pretrained): Promise<string[]> {
  return writeFiles(dir, {
    [OPEN_CLIP_WEIGHTS[0]]: writeSafetensors(shapedWeights(shapesOf(model), model.weights)),
    [OPEN_CLIP_CONFIG]: prettyJson(openClipConfig(model)),
    ...(model.kind === 'clip' ? model.tokenizer.files() : {}),
  });
}

/** The content of open_clip_config.json. Defaults of open_clip are written out, so that the file says all of the model. */
export function openClipConfig(model: PretrainedSettings) {
  const { preprocess } = model;
  return {
    model_cfg: model.kind === 'clip' ? clipSettings(model) : backboneSettings(model),
    preprocess_cfg: {
      mean: preprocess.mean,
      std: preprocess.std,
      interpolation: 'bicubic',
      resize_mode: 'shortest',
    },
  };
}

function clipSettings({ config, tokenizer }: { config: ModelConfig; tokenizer: Tokenizer }) {
  return {
    embed_dim: config.embedDim,
    quick_gelu: config.quickGelu,
    ...(config.initLogitBias === undefined ? {} : { init_logit_bias: config.initLogitBias }),
    vision_cfg: visionSettings(config.vision),
    text_cfg: textSettings(config.text, tokenizer),
  };
}

function backboneSettings(model: PretrainedSettings) {
  return { quick_gelu: usesQuickGelu(model), vision_cfg: visionSettings(visionOf(model)) };
}

function visionSettings(tower: VisionConfig) {
  if (tower.kind === 'modified-resnet') {
    const { imageSize, blocks, width, headWidth } = tower;
    return { image_size: imageSize, layers: blocks, width, head_width: headWidth, patch_size: null };
  }
  const vision = requireClipVit(tower, 'export to open_clip');
  return {
    image_size: vision.imageSize,
    layers: vision.layers,
    width: vision.width,
    head_width: vision.headWidth,
    mlp_ratio: vision.mlpRatio,
    patch_size: vision.patchSize,
  };
}

function textSettings(text: TextConfig, tokenizer: Tokenizer) {
  return {
    context_length: text.contextLength,
    vocab_size: text.vocabSize,
    ...(tokenizer.vocabulary === 'clip' ? {} : { hf_tokenizer_name: LOCAL_TOKENIZER }),
    width: text.width,
    heads: text.heads,
    layers: text.layers,
    mlp_ratio: text.mlpRatio,
  };
}

// open_clip takes the folder itself for a `local-dir:` model whatever this says, as long as it is not empty.
const LOCAL_TOKENIZER = './';

const channels = z.tuple([z.number(), z.number(), z.number()]);
/** Options whose default is what covey computes: they may be written out, and nothing else may be in them. */
const absent = z.union([z.null(), z.literal(false), z.literal('')]).optional();

const sharedVisionSettings = {
  image_size: z.int(),
  width: z.int(),
  head_width: z.int().default(64),
  timm_model_name: z
    .union([z.null(), z.literal('')], 'towers of timm (keys visual.trunk.*) are not supported, only open_clip’s own')
    .optional(),
};

const vitSettingsSchema = z.strictObject({
  ...sharedVisionSettings,
  layers: z.int(),
  mlp_ratio: z.number().default(4),
  patch_size: z.int(),
  // Only used in training.
  patch_dropout: z.number().optional(),
  ls_init_value: absent,
  attentional_pool: absent,
  global_average_pool: absent,
  no_ln_pre: absent,
  final_ln_after_pool: absent,
  output_tokens: absent,
  pool_type: z.literal('tok').optional(),
});

/** CLIP's ResNet: open_clip makes one where there are four numbers of layers. */
const resnetSettingsSchema = z.strictObject({
  ...sharedVisionSettings,
  layers: z.tuple([z.int(), z.int(), z.int(), z.int()]),
  patch_size: z.number().nullish(),
});

const hasFourStages = (settings: unknown) =>
  typeof settings === 'object' && settings !== null && 'layers' in settings && Array.isArray(settings.layers);

/** By the kind of tower, so that what is wrong is said of that kind alone. */
const visionSettingsSchema = z.unknown().transform((settings, context) => {
  const parsed = (hasFourStages(settings) ? resnetSettingsSchema : vitSettingsSchema).safeParse(settings);
  if (parsed.success) return visionOfSettings(parsed.data);
  for (const { path, message } of parsed.error.issues) context.addIssue({ code: 'custom', path, message });
  return z.NEVER;
});

type VisionSettings = z.infer<typeof vitSettingsSchema> | z.infer<typeof resnetSettingsSchema>;

function visionOfSettings(settings: VisionSettings): VisionConfig {
  const { image_size: imageSize, width, head_width: headWidth } = settings;
  if (!('mlp_ratio' in settings))
    return { kind: 'modified-resnet', imageSize, blocks: settings.layers, width, headWidth };
  const { patch_size: patchSize, mlp_ratio: mlpRatio } = settings;
  return { imageSize, patchSize, width, layers: settings.layers, headWidth, mlpRatio };
}

const textSettingsSchema = z.strictObject({
  context_length: z.int().default(77),
  vocab_size: z.int().default(clipVocabularySize),
  hf_tokenizer_name: z.string().optional(),
  width: z.int(),
  heads: z.int(),
  layers: z.int(),
  mlp_ratio: z.number().default(4),
  ls_init_value: absent,
  embed_cls: absent,
  no_causal_mask: absent,
  proj_bias: absent,
  output_tokens: absent,
  pool_type: z.literal('argmax').optional(),
  hf_model_name: absent,
});

/** What covey can run of an open_clip config; anything else in `model_cfg` names another architecture and is refused. */
const configSchema = z.object({
  model_cfg: z
    .strictObject({
      embed_dim: z.int().optional(),
      quick_gelu: z.boolean().default(false),
      // Only another way to hold the same towers: the text tower's keys begin with `text.`.
      custom_text: z.boolean().optional(),
      init_logit_scale: z.number().optional(),
      init_logit_bias: z.number().optional(),
      vision_cfg: visionSettingsSchema,
      text_cfg: textSettingsSchema.optional(),
    })
    .refine(({ embed_dim, text_cfg }) => (embed_dim === undefined) === (text_cfg === undefined), {
      path: ['embed_dim'],
      message: 'must be there where text_cfg is',
    }),
  preprocess_cfg: z
    .object({ mean: channels.default([...CLIP_PREPROCESS.mean]), std: channels.default([...CLIP_PREPROCESS.std]) })
    .prefault({}),
});

/**
 * Reads an open_clip_config.json with a ViT or CLIP's ResNet as image tower and the plain text tower, or one that covey wrote for a backbone.
 * @throws CoveyError UNSUPPORTED for another architecture
 */
export function readOpenClipConfig(text: string, file: string): ModelDescription {
  const { model_cfg, preprocess_cfg: preprocess } = parseConfig(configSchema, text, file);
  const { embed_dim, quick_gelu: quickGelu, init_logit_bias, vision_cfg: vision, text_cfg } = model_cfg;
  if (!text_cfg) return { kind: 'backbone', vision: checkedVision(vision), quickGelu, preprocess };
  const config = resolveModelConfig({
    embedDim: embed_dim,
    quickGelu,
    initLogitBias: init_logit_bias,
    vision,
    text: {
      contextLength: text_cfg.context_length,
      vocabSize: text_cfg.vocab_size,
      width: text_cfg.width,
      heads: text_cfg.heads,
      layers: text_cfg.layers,
      mlpRatio: text_cfg.mlp_ratio,
    },
  });
  return { kind: 'clip', config, preprocess, tokenizer: text_cfg.hf_tokenizer_name ? 'beside' : 'clip' };
}
