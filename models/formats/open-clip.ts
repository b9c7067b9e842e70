import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import type { ModelConfig } from '../../common/config/run-config.ts';
import { CoveyError } from '../../common/errors.ts';
import { resolveModelConfig } from '../model-config.ts';
import { clipVocabularySize } from '../tokenizer/clip-vocabulary.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { readSafetensors, writeSafetensors } from './safetensors.ts';
import { type ImportedModel, type PreprocessConfig, plainWeights, shapedWeights, type Weights } from './weights.ts';

/** open_clip's names (`constants.py`). */
const CONFIG_FILE = 'open_clip_config.json';
const WEIGHTS_FILE = 'open_clip_model.safetensors';

export interface ExportedModel {
  readonly config: ModelConfig;
  readonly weights: Weights;
  readonly preprocess: PreprocessConfig;
  readonly tokenizer: Tokenizer;
}

/**
 * Writes a folder that `open_clip.create_model('local-dir:DIR')` loads: weights, config, and the tokenizer's files. A tokenizer other
 * than CLIP's own is announced by `hf_tokenizer_name`, for which open_clip reads the tokenizer from the folder.
 * @returns the paths written
 */
export async function exportOpenClip(dir: string, model: ExportedModel): Promise<string[]> {
  const weights = writeSafetensors(shapedWeights(model.config, model.weights));
  return writeFiles(dir, {
    [WEIGHTS_FILE]: weights,
    [CONFIG_FILE]: `${JSON.stringify(openClipConfig(model), null, 2)}\n`,
    ...model.tokenizer.files(),
  });
}

/** The content of open_clip_config.json. Defaults of open_clip are written out, so that the file says all of the model. */
export function openClipConfig({ config, preprocess, tokenizer }: Omit<ExportedModel, 'weights'>) {
  const { vision, text } = config;
  return {
    model_cfg: {
      embed_dim: config.embedDim,
      quick_gelu: config.quickGelu,
      ...(config.initLogitBias === undefined ? {} : { init_logit_bias: config.initLogitBias }),
      vision_cfg: {
        image_size: vision.imageSize,
        layers: vision.layers,
        width: vision.width,
        head_width: vision.headWidth,
        mlp_ratio: vision.mlpRatio,
        patch_size: vision.patchSize,
      },
      text_cfg: {
        context_length: text.contextLength,
        vocab_size: text.vocabSize,
        ...(tokenizer.vocabulary === 'clip' ? {} : { hf_tokenizer_name: LOCAL_TOKENIZER }),
        width: text.width,
        heads: text.heads,
        layers: text.layers,
        mlp_ratio: text.mlpRatio,
      },
    },
    preprocess_cfg: {
      mean: preprocess.mean,
      std: preprocess.std,
      interpolation: 'bicubic',
      resize_mode: 'shortest',
    },
  };
}

// open_clip takes the folder itself for a `local-dir:` model whatever this says, as long as it is not empty.
const LOCAL_TOKENIZER = './';

const channels = z.tuple([z.number(), z.number(), z.number()]);

/** What covey can run of an open_clip config; anything else in `model_cfg` names another architecture and is refused. */
const configSchema = z.object({
  model_cfg: z.strictObject({
    embed_dim: z.int(),
    quick_gelu: z.boolean().default(false),
    init_logit_bias: z.number().optional(),
    vision_cfg: z.strictObject({
      image_size: z.int(),
      layers: z.int(),
      width: z.int(),
      head_width: z.int().default(64),
      mlp_ratio: z.number().default(4),
      patch_size: z.int(),
    }),
    text_cfg: z.strictObject({
      context_length: z.int().default(77),
      vocab_size: z.int().default(clipVocabularySize),
      hf_tokenizer_name: z.string().optional(),
      width: z.int(),
      heads: z.int(),
      layers: z.int(),
      mlp_ratio: z.number().default(4),
    }),
  }),
  preprocess_cfg: z.object({ mean: channels, std: channels }),
});

/**
 * Loads a folder in open_clip's layout with a ViT image tower and the plain text tower.
 * @throws CoveyError UNSUPPORTED for another architecture, DATA_CORRUPT where weights and config disagree, NOT_FOUND for a missing file
 */
export async function importOpenClip(dir: string): Promise<ImportedModel> {
  const parsed = parseConfig(configSchema, await readModelFile(dir, CONFIG_FILE), path.join(dir, CONFIG_FILE));
  const { embed_dim, quick_gelu, init_logit_bias, vision_cfg, text_cfg } = parsed.model_cfg;
  const config = resolveModelConfig({
    embedDim: embed_dim,
    quickGelu: quick_gelu,
    initLogitBias: init_logit_bias,
    vision: {
      imageSize: vision_cfg.image_size,
      patchSize: vision_cfg.patch_size,
      width: vision_cfg.width,
      layers: vision_cfg.layers,
      headWidth: vision_cfg.head_width,
      mlpRatio: vision_cfg.mlp_ratio,
    },
    text: {
      contextLength: text_cfg.context_length,
      vocabSize: text_cfg.vocab_size,
      width: text_cfg.width,
      heads: text_cfg.heads,
      layers: text_cfg.layers,
      mlpRatio: text_cfg.mlp_ratio,
    },
  });
  const { tensors } = readSafetensors(await readModelFile(dir, WEIGHTS_FILE));
  return { config, weights: plainWeights(config, tensors, WEIGHTS_FILE), preprocess: parsed.preprocess_cfg };
}

/** Writes files by name, making the folder. @returns their paths */
export async function writeFiles(dir: string, files: Readonly<Record<string, string | Uint8Array>>): Promise<string[]> {
  await mkdir(dir, { recursive: true });
  const written: string[] = [];
  for (const [name, content] of Object.entries(files)) {
    const file = path.join(dir, name);
    await writeFile(file, content);
    written.push(file);
  }
  return written;
}

/** A file of a model folder. @throws CoveyError NOT_FOUND */
export async function readModelFile(dir: string, name: string): Promise<Uint8Array> {
  try {
    return await readFile(path.join(dir, name));
  } catch (error) {
    throw new CoveyError(
      'NOT_FOUND',
      `Cannot load the model: ${path.join(dir, name)} cannot be read; is this a model folder?`,
      {
        cause: error,
        fields: { dir, name },
      },
    );
  }
}

/** JSON of a known form. @throws CoveyError UNSUPPORTED with every key that covey does not know or lacks */
export function parseConfig<T>(schema: z.ZodType<T>, content: Uint8Array, file: string): T {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder().decode(content));
  } catch (error) {
    throw new CoveyError('DATA_CORRUPT', `Cannot load the model: ${file} is not JSON`, {
      cause: error,
      fields: { file },
    });
  }
  const result = schema.safeParse(json);
  if (result.success) return result.data;
  const problems = result.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`);
  throw new CoveyError(
    'UNSUPPORTED',
    `Cannot load the model: ${file} is not a ViT CLIP that covey can run: ${problems.join('; ')}`,
    {
      fields: { file, problems },
    },
  );
}
