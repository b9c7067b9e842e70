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

/** Where the losses weigh about as much as the labels' in the end: a covariance distance over 4F² is small by nature (Sun & Saenko 2016, §3.2). */
export const DEFAULT_WEIGHTS: Readonly<Record<DomainMethod, number>> = { dann: 1, coral: 1, mmd: 1, none: 1 };
