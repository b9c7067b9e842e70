import { z } from 'zod';
import { tuneRecipeSchema } from '../tune/tune-recipe.ts';

export const DOMAIN_METHODS = ['dann', 'coral', 'mmd', 'none'] as const;
export type DomainMethod = (typeof DOMAIN_METHODS)[number];

/** Everything an adaptation depends on besides backbone and data. */
export const domainRecipeSchema = z.strictObject({
  /** How the target's features are drawn to the source's; `none`: the target is not looked at, what adaptation is compared with. */
  method: z.enum(DOMAIN_METHODS),
  /** Factor of that loss beside the cross-entropy of the labels. */
  weight: z.number().positive(),
  /** DANN: the reversal's coefficient; see `ReversalSchedule`. */
  reversal: z.strictObject({
    gamma: z.number().positive().default(10),
    max: z.number().positive().default(1),
    steps: z.int().positive().optional(),
  }),
  /** DANN: width of the discriminator's hidden layers. */
  discriminatorWidth: z.int().positive().default(1024),
  tune: tuneRecipeSchema,
});

export type DomainRecipe = z.infer<typeof domainRecipeSchema>;

/**
 * Where a loss weighs about as much as the labels' in training, as Sun & Saenko (2016) choose it, for features of about unit variance such as a final
 * layer norm gives: distances of distributions are small by nature. A feature of another scale wants another weight, most of all CORAL.
 */
export const DEFAULT_WEIGHTS: Readonly<Record<DomainMethod, number>> = { dann: 1, coral: 300, mmd: 10, none: 1 };
