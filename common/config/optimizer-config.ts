import { z } from 'zod';

/**
 * How weights change: optimiser, learning rate over time, rules per parameter, average. What only some optimisers or schedules use has no
 * default here: set beside another one it is an error, and the stored config of older runs stays what it was.
 */
const positiveInt = z.int().positive();
const fraction = z.number().min(0).max(1);
const positive = z.number().positive();

export const OPTIMIZER_NAMES = ['adamw', 'sgd', 'lars', 'lamb', 'lion'] as const;
const SCHEDULES = ['cosine', 'constant', 'linear', 'rsqrt', 'step'] as const;

/** Which optimisers or schedules read a key. */
const USED_BY = {
  variant: ['lars'],
  momentum: ['sgd', 'lars'],
  nesterov: ['sgd', 'lars'],
  trustCoefficient: ['lars'],
  biasCorrection: ['lamb'],
  cooldownSteps: ['constant', 'rsqrt'],
  timescaleSteps: ['rsqrt'],
  milestones: ['step'],
  milestoneFactor: ['step'],
} as const satisfies Record<string, readonly string[]>;

const optimizerObject = z.strictObject({
  name: z.enum(OPTIMIZER_NAMES).optional().describe('adamw unless set'),
  variant: z
    .enum(['simclr', 'moco-v3', 'larc'])
    .optional()
    .describe(
      'Of lars, required there. simclr: lr inside the momentum; moco-v3: outside, 1-D parameters neither adapted nor decayed; larc: lightly’s, adapted only where decayed',
    ),
  lr: positive.default(5e-4),
  beta1: fraction.default(0.9),
  beta2: fraction.default(0.98).describe('CLIP’s; the papers of lamb and lion have 0.999 and 0.99'),
  eps: positive.default(1e-6),
  momentum: fraction.optional().describe('Of sgd and lars; 0.9 unless set'),
  nesterov: z.boolean().optional().describe('Of sgd and lars; false unless set'),
  trustCoefficient: positive.optional().describe('η of lars; 0.001 unless set'),
  biasCorrection: z.boolean().optional().describe('Of lamb: m̂ and v̂ as in the paper; true unless set'),
  weightDecay: z.number().min(0).default(0.2),
  decayRule: z
    .enum(['v4', 'legacy'])
    .default('v4')
    .describe(
      'v4: ndim<=1 and class/positional embeddings excluded; legacy: ndim<2, bn, ln, bias, logit_scale. What is excluded has no trust ratio either',
    ),
  warmupSteps: z.int().min(0).default(10_000),
  schedule: z
    .enum(SCHEDULES)
    .default('cosine')
    .describe('After the warm-up. cosine, linear: to 0 at the last step; rsqrt: lr/√(1 + s/timescaleSteps)'),
  cooldownSteps: positiveInt
    .optional()
    .describe('Of constant and rsqrt: the last steps, over which lr falls linearly to 0'),
  timescaleSteps: positiveInt.optional().describe('Of rsqrt; 10000 unless set, as in big_vision'),
  milestones: z.array(positiveInt).min(1).optional().describe('Of step, required there: where lr is multiplied'),
  milestoneFactor: positive.optional().describe('Of step: by what; 0.1 unless set'),
  gradClipNorm: positive.optional(),
});

export type OptimizerConfig = z.infer<typeof optimizerObject>;

export const optimizerSchema = optimizerObject
  .superRefine((config, context) => {
    const refuse = (key: keyof OptimizerConfig, message: string) =>
      context.addIssue({ code: 'custom', path: [key], message, input: config[key] });
    const name = config.name ?? 'adamw';
    const chosen: readonly string[] = [name, config.schedule];
    for (const [key, users] of Object.entries(USED_BY) as [keyof typeof USED_BY, readonly string[]][]) {
      if (config[key] === undefined || users.some((user) => chosen.includes(user))) continue;
      const isOfSchedule = (SCHEDULES as readonly string[]).includes(users[0]!);
      const what = isOfSchedule ? `schedule ${config.schedule}` : name;
      refuse(key, `is for ${users.join(' and ')}; ${what} has no use for it`);
    }
    if (name === 'lars' && config.variant === undefined) {
      refuse('name', 'lars needs train.optimizer.variant: simclr, moco-v3 or larc, which are not equal');
    }
    for (const key of ['beta1', 'beta2', 'momentum'] as const) {
      if (config[key] === 1) refuse(key, 'must be below 1: at 1 no gradient ever counts');
    }
    if (config.nesterov && config.momentum === 0) refuse('nesterov', 'needs a momentum above 0');
    const { milestones } = config;
    if (config.schedule === 'step' && !milestones) refuse('schedule', 'step needs train.optimizer.milestones');
    if (milestones?.some((step, i) => i > 0 && step <= milestones[i - 1]!)) refuse('milestones', 'must rise');
  })
  .prefault({});

const regex = z.string().refine(isRegex, 'must be a regular expression');

export const parameterGroupSchema = z
  .strictObject({
    match: regex.describe('Regular expression over parameter names (open_clip’s keys), anywhere in the name'),
    lrScale: z.number().min(0).optional().describe('Multiplies the learning rate'),
    weightDecay: z.number().min(0).optional().describe('Instead of the optimiser’s, whatever decayRule says'),
    frozen: z.boolean().optional().describe('true: not trained; false: trained though its tower is locked'),
  })
  .refine(
    ({ lrScale, weightDecay, frozen }) => [lrScale, weightDecay, frozen].some((value) => value !== undefined),
    'must set lrScale, weightDecay or frozen',
  );

const towerLock = z.union([
  z.literal(true),
  z.strictObject({
    unlockedGroups: z
      .int()
      .min(0)
      .describe('The last n stay trainable, as in open_clip: projection; last block with the final norm; each block'),
  }),
]);

export const lockSchema = z.strictObject({ image: towerLock.optional(), text: towerLock.optional() });

const decayPerLayer = z.number().positive().max(1);

export const layerDecaySchema = z.union([
  decayPerLayer,
  z.strictObject({ image: decayPerLayer.optional(), text: decayPerLayer.optional() }),
]);

export const emaSchema = z.strictObject({
  decay: z.number().min(0).lt(1).describe('Of the average; 0.9999 is usual for long runs'),
  everySteps: positiveInt.default(1).describe('Updates between two looks at the weights'),
});

export type ParameterGroupConfig = z.infer<typeof parameterGroupSchema>;
export type LockConfig = z.infer<typeof lockSchema>;
export type LayerDecayConfig = z.infer<typeof layerDecaySchema>;

function isRegex(text: string): boolean {
  try {
    new RegExp(text);
    return true;
  } catch {
    return false;
  }
}
