import { z } from 'zod';
import { augmentSchema } from '../../common/config/augment-config.ts';
import { adapterOptionsSchema } from '../adapters/adapter.ts';

const positive = z.number().positive();
const whole = z.int().min(0);

/** Everything a fine-tuning depends on besides backbone and data: stored beside its result, compared when it is gone on with. */
export const tuneRecipeSchema = z.strictObject({
  /** What is trained: everything, the head alone, or the head with an adapter. */
  method: z.enum(['full', 'head', 'adapter']).default('full'),
  adapter: adapterOptionsSchema.optional(),
  seed: whole.default(0),
  steps: z.int().positive(),
  batch: z.int().positive().default(64),
  lr: positive.default(1e-3),
  warmupSteps: whole.default(0),
  /** After the warm-up: half a cosine to 0, or DANN's lr / (1 + 10·p)^0.75 with p the share of the steps taken. */
  schedule: z.enum(['cosine', 'dann']).default('cosine'),
  /** AdamW, or SGD with Nesterov momentum 0.9. */
  optimizer: z.enum(['adamw', 'sgd']).default('adamw'),
  weightDecay: z.number().min(0).default(0.05),
  /** Learning rate of the backbone relative to that of what is new. */
  backboneLrScale: positive.default(1),
  /** Learning rate × this per layer below the head. */
  layerDecay: positive.max(1).default(1),
  /** Of the backbone only the last so many groups are trained (blocks, final norm; as `train.lock`). Default: all. */
  unlockedGroups: whole.optional(),
  /** The first so many steps train the head alone. */
  headSteps: whole.default(0),
  labelSmoothing: z.number().min(0).lt(1).default(0),
  /** α of mixup; 0: none. */
  mixup: z.number().min(0).default(0),
  /** ResNets: batch norms by the statistics of pretraining, which stay, or by each batch's own, which the running ones follow. */
  batchNorm: z.enum(['running', 'batch']).default('running'),
  /** Largest norm of a gradient. */
  clipNorm: positive.default(1),
  precision: z.enum(['fp32', 'bf16']).default('fp32'),
  evaluateEverySteps: z.int().positive(),
  /** Evaluations without an improvement after which training stops; 0: never. */
  patience: whole.default(0),
  augment: augmentSchema,
});

export type TuneRecipe = z.infer<typeof tuneRecipeSchema>;
