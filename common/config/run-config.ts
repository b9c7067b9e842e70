import { z } from 'zod';
import { augmentSchema } from './augment-config.ts';
import { evalProblems, evalSchema } from './eval-config.ts';
import { lossProblems, lossSchema, objectiveSchema } from './loss-config.ts';
import { memoryProblems, memoryShape } from './memory-config.ts';
import { captionsSchema, dataProblems, mixtureSchema } from './mixture-config.ts';
import { emaSchema, layerDecaySchema, lockSchema, optimizerSchema, parameterGroupSchema } from './optimizer-config.ts';
import { PIXELS_MAX_DEFAULT } from './pixels-max.ts';
import { visionConfigSchema, visionOverridesSchema } from './vision-config.ts';

/**
 * One schema for a run: what `run.yaml` may say, what a checkpoint stores, what resume compares. Strict everywhere: an
 * unknown key is an error, because a misspelt option that is silently ignored costs a night.
 */

const positiveInt = z.int().positive();
const fraction = z.number().min(0).max(1);

export const textConfigSchema = z.strictObject({
  contextLength: positiveInt,
  vocabSize: positiveInt,
  width: positiveInt.describe('Width of the transformer'),
  heads: positiveInt,
  layers: positiveInt,
  mlpRatio: z.number().positive().default(4),
});

const initLogitBias = z
  .number()
  .optional()
  .describe('Where the learnt bias of the logits starts; SigLIP has one (−10, Zhai et al. 2023 §3.2), CLIP has none');

export const modelConfigSchema = z.strictObject({
  embedDim: positiveInt.describe('Width of the shared embedding'),
  quickGelu: z
    .boolean()
    .default(false)
    .describe('x·sigmoid(1.702x) as in the OpenAI weights; otherwise exact erf GELU'),
  initLogitBias,
  vision: visionConfigSchema,
  text: textConfigSchema,
});

// Overrides carry no defaults: see vision-config.ts.
const textOverridesSchema = textConfigSchema.extend({ mlpRatio: z.number().positive() }).partial();

/** A preset name, or a full model; with both, `preset` is the base and the rest overrides it (deep). */
const modelSchema = z.union([
  z.string().describe('Name of a preset, e.g. tiny, ViT-B-32'),
  z.strictObject({
    preset: z.string().optional(),
    embedDim: positiveInt.optional(),
    quickGelu: z.boolean().optional(),
    initLogitBias,
    vision: visionOverridesSchema.optional(),
    text: textOverridesSchema.optional(),
  }),
]);

const dataSchema = z.strictObject({
  manifest: z
    .string()
    .optional()
    .describe('URL of the dataset manifest written by `covey pack`; this or data.mixture is needed'),
  mixture: mixtureSchema.optional(),
  replacement: z
    .boolean()
    .default(false)
    .describe(
      'false: each sample once in an epoch of its dataset. true: every place of a batch draws from a shuffle block, so a sample may come several times or not at all',
    ),
  captions: captionsSchema,
  augment: augmentSchema,
  mean: z.tuple([z.number(), z.number(), z.number()]).default([0.48145466, 0.4578275, 0.40821073]),
  std: z
    .tuple([z.number().positive(), z.number().positive(), z.number().positive()])
    .default([0.26862954, 0.26130258, 0.27577711]),
  tokenizer: z.string().default('clip').describe('`clip` (49,408 tokens) or the URL of a tokenizer.json'),
  cacheDir: z.string().optional().describe('Local shard cache. Default: a covey folder under the user cache directory'),
  cacheBytesMax: positiveInt.default(20 * 2 ** 30),
  decoded: z
    .strictObject({
      side: z
        .int()
        .min(0)
        .default(0)
        .describe('0: decode from the file each time. n: decode once to n×n pixels and augment from those'),
      bytesMax: positiveInt.default(2 ** 30).describe('Memory for decoded pictures, per worker'),
    })
    .prefault({}),
  prefetchSteps: positiveInt.default(3),
  pixelsMax: positiveInt.default(PIXELS_MAX_DEFAULT).describe('A picture with more pixels is refused as broken'),
  badSamplesMax: fraction
    .default(0.01)
    .describe('Share of broken samples in the steps so far beyond which the run stops'),
  shuffleBlockShards: positiveInt.default(8).describe('Shards per shuffle block: samples mix within a block'),
});

const trainSchema = z.strictObject({
  steps: positiveInt.describe('Updates in the whole run'),
  globalBatch: positiveInt,
  lanes: positiveInt.describe('Fixed micro-batches of a step; the largest number of workers. Must divide globalBatch'),
  precision: z.enum(['fp32', 'bf16']).default('fp32'),
  ...memoryShape,
  deterministic: z
    .boolean()
    .default(true)
    .describe(
      'false allows order-free reductions where they are faster, on GPUs; on the CPU there are none, so both give the same bits',
    ),
  nonFinite: z
    .enum(['skip', 'stop'])
    .default('skip')
    .describe('What to do with a step whose loss or gradient is NaN or Inf'),
  nonFiniteMax: z.int().min(0).default(20).describe('Skipped steps beyond which the run stops'),
  optimizer: optimizerSchema,
  groups: z
    .array(parameterGroupSchema)
    .min(1)
    .optional()
    .describe(
      'Rules by parameter name: match (a regular expression over open_clip’s keys) with lrScale, weightDecay, frozen; where several match, the last that says something counts',
    ),
  layerDecay: layerDecaySchema
    .optional()
    .describe('Learning rate × this per layer below the head (BEiT, MAE); one number or one per tower'),
  lock: lockSchema.optional().describe('Towers that are not trained (LiT): true, or all but their last groups'),
  ema: emaSchema.optional().describe('Moving average of the weights, for `eval` and `export --weights ema`'),
  initFrom: z
    .string()
    .optional()
    .describe(
      'URL of a folder or file of weights, or of a run in its store (…/runs/NAME), that the run begins with instead of drawing them from the seed (docs/export.md); heads are drawn',
    ),
  logitScaleInit: z.number().optional().describe('Natural log. Default: ln(1/0.07) for clip, ln 10 for siglip'),
  logitScaleMax: z.number().default(Math.log(100)).describe('Natural log; clamped to [0, this] after each update'),
});

const checkpointSchema = z
  .strictObject({
    everySteps: positiveInt.default(1000),
    keepLast: z.int().min(2).default(3).describe('At least 2: the newest may be in the making'),
  })
  .prefault({});

const workersSchema = z
  .strictObject({
    min: positiveInt.default(1).describe('Below this many workers the run waits'),
    expected: positiveInt
      .default(1)
      .describe('At the start the coordinator waits for this many, up to joinWaitSeconds'),
    joinWaitSeconds: z.number().positive().default(30),
    engine: z
      .enum(['auto', 'torch', 'tensorflow', 'wasm', 'cpu'])
      .default('auto')
      .describe('Where the numbers are crunched (docs/engines.md). auto: torch where its addon loads, else wasm'),
    device: z
      .enum(['auto', 'cpu', 'cuda'])
      .default('auto')
      .describe(
        'Of the engine torch (docs/gpu.md). auto: a GPU where there is one; the workers of one machine take its GPUs in turn',
      ),
  })
  .prefault({});

const timingSchema = z
  .strictObject({
    heartbeatSeconds: z.number().positive().default(0.25),
    leaseSeconds: z.number().positive().default(2),
    collectiveTimeoutSeconds: z.number().positive().default(60),
    drainSeconds: z.number().positive().default(30),
  })
  .prefault({});

export const runConfigSchema = z
  .strictObject({
    run: z
      .string()
      .regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'lower-case letters, digits and dashes, at most 63')
      .describe('Name of the run'),
    preset: z
      .string()
      .optional()
      .describe(
        'A published recipe (`covey config presets`, docs/recipes.md) that everything else overrides key by key. Filled in when the file is read',
      ),
    seed: z
      .int()
      .min(0)
      .max(2 ** 32 - 1)
      .default(0),
    store: z.string().describe('Where the run keeps HEAD and checkpoints: file:///… or s3://bucket/prefix'),
    objective: objectiveSchema,
    loss: lossSchema,
    model: modelSchema,
    data: dataSchema,
    train: trainSchema,
    checkpoint: checkpointSchema,
    eval: evalSchema,
    workers: workersSchema,
    timing: timingSchema,
  })
  .superRefine((config, context) => {
    const { globalBatch, lanes } = config.train;
    if (globalBatch % lanes !== 0) {
      context.addIssue({
        code: 'custom',
        path: ['train', 'lanes'],
        message: `must divide train.globalBatch (${globalBatch}), is ${lanes}`,
      });
    }
    const { engine, device } = config.workers;
    if (device === 'cuda' && engine !== 'auto' && engine !== 'torch') {
      context.addIssue({
        code: 'custom',
        path: ['workers', 'device'],
        message: `needs the engine torch, workers.engine is ${engine}`,
      });
    }
    for (const problem of dataProblems(config.data)) context.addIssue({ code: 'custom', ...problem });
    for (const problem of evalProblems(config.eval)) context.addIssue({ code: 'custom', ...problem });
    for (const problem of lossProblems(config)) context.addIssue({ code: 'custom', ...problem });
    for (const problem of memoryProblems(config)) context.addIssue({ code: 'custom', ...problem });
    const { cooldownSteps, milestones } = config.train.optimizer;
    for (const [key, last] of Object.entries({ cooldownSteps, milestones: milestones?.at(-1) })) {
      if (last === undefined || last <= config.train.steps) continue;
      context.addIssue({
        code: 'custom',
        path: ['train', 'optimizer', key],
        message: `must lie within train.steps (${config.train.steps}), reaches ${last}`,
      });
    }
    if (config.workers.min > lanes) {
      context.addIssue({
        code: 'custom',
        path: ['workers', 'min'],
        message: `must be at most train.lanes (${lanes}), is ${config.workers.min}`,
      });
    }
  });

export type RunConfig = z.infer<typeof runConfigSchema>;
export type ModelConfig = z.infer<typeof modelConfigSchema>;
export type TextConfig = z.infer<typeof textConfigSchema>;
export type DataConfig = z.infer<typeof dataSchema>;
export type { EvalConfig } from './eval-config.ts';
export type { LossConfig } from './loss-config.ts';
export type { OptimizerConfig } from './optimizer-config.ts';
export type { VisionConfig, VitConfig } from './vision-config.ts';
