import { type Command, Option } from 'commander';
import { CoveyError } from '../../common/errors.ts';
import {
  DEFAULT_WEIGHTS,
  DOMAIN_METHODS,
  type DomainMethod,
  type DomainRecipe,
  domainRecipeSchema,
} from '../../transfer/domain/domain-recipe.ts';
import { wholeNumber } from '../option-values.ts';
import { realNumber } from './session.ts';
import { recipeOf, type TuneOptions } from './tune-options.ts';

/** Options that say how a network is adapted to a domain, and by what pictures. */
export interface AdaptationOptions {
  readonly source: string;
  readonly target: string;
  readonly method: DomainMethod;
  readonly alignmentWeight?: number;
  readonly gamma: number;
  readonly reversalMax: number;
  readonly reversalSteps?: number;
  readonly discriminatorWidth: number;
  readonly judgeTarget?: boolean;
  readonly targetTest?: string;
  readonly points: number;
}

export function addAdaptationOptions(command: Command): Command {
  return command
    .requiredOption('--source <manifest>', 'manifest (URL or path) of the labelled pictures')
    .requiredOption('--target <manifest>', 'manifest (URL or path) of the other domain’s pictures; labels are not read')
    .addOption(
      new Option('--method <name>', 'dann: adversarial; coral: covariances; mmd: kernel means; none: source only')
        .choices(DOMAIN_METHODS)
        .default('dann'),
    )
    .option(
      '--alignment-weight <factor>',
      `of that loss beside the labels’ (default: ${DOMAIN_METHODS.filter((name) => name !== 'none')
        .map((name) => `${name} ${DEFAULT_WEIGHTS[name]}`)
        .join(', ')})`,
      realNumber(0),
    )
    .option('--gamma <γ>', 'dann: λ = max·(2 / (1 + exp(−γ·p)) − 1)', realNumber(0), 10)
    .option('--reversal-max <λ>', 'dann: where λ ends', realNumber(0), 1)
    .option('--reversal-steps <n>', 'dann: steps in which p goes from 0 to 1 (default: all)', wholeNumber(1))
    .option('--discriminator-width <n>', 'dann: of its two hidden layers', wholeNumber(1), 1024)
    .option('--judge-target', 'read the target’s labels too, for the report alone: how right its held-out pictures are')
    .option('--target-test <manifest>', 'labelled pictures of the target’s domain, for the report alone')
    .option('--points <n>', 'pictures of each domain that the report’s maps show', wholeNumber(4, 500), 300);
}

/** @throws CoveyError INVALID_ARGUMENT naming what does not fit */
export function domainRecipeOf(options: AdaptationOptions & TuneOptions): DomainRecipe {
  const { method, gamma, reversalMax: max, reversalSteps: steps } = options;
  const tuned = recipeOf(options);
  if (method !== 'none' && (tuned.method === 'head' || tuned.headSteps >= tuned.steps)) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot adapt by ${method}: with the head alone trained no feature moves; leave --head-only out and keep --head-steps below --steps, or use --method none`,
      { fields: { headSteps: tuned.headSteps, steps: tuned.steps } },
    );
  }
  const parsed = domainRecipeSchema.safeParse({
    method,
    weight: options.alignmentWeight ?? DEFAULT_WEIGHTS[method],
    reversal: { gamma, max, ...(steps === undefined ? {} : { steps }) },
    discriminatorWidth: options.discriminatorWidth,
    tune: tuned,
  });
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`);
  throw new CoveyError('INVALID_ARGUMENT', `Cannot adapt: ${problems.join('; ')}`, { fields: { problems } });
}
