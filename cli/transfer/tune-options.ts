import { type Command, Option } from 'commander';
import { CoveyError } from '../../common/errors.ts';
import type { AdapterOptions } from '../../transfer/adapters/adapter.ts';
import { type TuneRecipe, tuneRecipeSchema } from '../../transfer/tune/tune-recipe.ts';
import { wholeNumber } from '../option-values.ts';
import { realNumber } from './session.ts';

/** Options that say how a network is fine-tuned. */
export interface TuneOptions {
  readonly adapter?: AdapterName;
  readonly rank: number;
  readonly width: number;
  readonly headOnly?: boolean;
  readonly steps: number;
  readonly batch: number;
  readonly lr: number;
  readonly warmup?: number;
  readonly schedule: 'cosine' | 'dann';
  readonly optimizer: 'adamw' | 'sgd';
  readonly weightDecay: number;
  readonly backboneLr?: number;
  readonly layerDecay?: number;
  readonly unlockedGroups?: number;
  /** Undefined where a command has another default than a number. */
  readonly headSteps?: number;
  readonly labelSmoothing: number;
  readonly mixup: number;
  readonly evaluateEvery?: number;
  readonly patience: number;
  readonly batchNorm?: 'running' | 'batch';
  readonly precision: 'fp32' | 'bf16';
  readonly flip: number;
  readonly scale: number;
  readonly seed: number;
}

const ADAPTERS = ['lora', 'bottleneck', 'conv-series', 'conv-parallel'] as const;
type AdapterName = (typeof ADAPTERS)[number];

interface StepDefaults {
  readonly lr: number;
  /** `fifth`: of all steps. Default 0. */
  readonly headSteps?: 0 | 'fifth';
}

/** Options of every command that fine-tunes; what adapters are trained with is not among the backbone's. */
export function addTuneOptions(command: Command, defaults: StepDefaults = { lr: 1e-3 }): Command {
  const kind = new Option('--adapter <kind>', 'train an adapter, and leave the backbone as it is').choices(ADAPTERS);
  const adapted = addAdapterSizes(command.addOption(kind))
    .option('--head-only', 'train the head alone')
    .option('--backbone-lr <factor>', 'of the backbone, relative to --lr', realNumber(0), 0.1)
    .option('--layer-decay <factor>', 'learning rate × this per layer below the head', realNumber(0, 1), 1)
    .option('--unlocked-groups <n>', 'train only the last so many groups of the backbone', wholeNumber(0));
  return addStepOptions(adapted, defaults);
}

/** The same for a command that trains adapters and nothing else. They start from nothing, so they take a higher rate. */
export function addAdaptOptions(command: Command): Command {
  const kind = new Option(
    '--adapter <kind>',
    'bottleneck and lora: transformers; conv-series and conv-parallel: ResNets',
  );
  return addStepOptions(addAdapterSizes(command.addOption(kind.choices(ADAPTERS).default('bottleneck'))), { lr: 5e-3 });
}

function addAdapterSizes(command: Command): Command {
  return command
    .option('--rank <n>', 'lora: rank of the updates', wholeNumber(1), 8)
    .option('--width <n>', 'bottleneck: width', wholeNumber(1), 16);
}

function addStepOptions(command: Command, { lr, headSteps = 0 }: StepDefaults): Command {
  const head = new Option('--head-steps <n>', 'train the head alone for so many steps first').argParser(wholeNumber(0));
  return command
    .option('--steps <n>', 'updates', wholeNumber(1), 500)
    .option('--batch <n>', 'pictures of an update', wholeNumber(1), 64)
    .option('--lr <rate>', 'highest learning rate, of what is new', realNumber(0), lr)
    .option('--warmup <n>', 'steps until then (default: a tenth of all)', wholeNumber(0))
    .addOption(
      new Option('--schedule <name>', 'after the warm-up: half a cosine to 0, or lr / (1 + 10·p)^0.75 as DANN has it')
        .choices(['cosine', 'dann'])
        .default('cosine'),
    )
    .addOption(
      new Option('--optimizer <name>', 'sgd: with Nesterov momentum 0.9').choices(['adamw', 'sgd']).default('adamw'),
    )
    .option('--weight-decay <λ>', 'decoupled', realNumber(0), 0.05)
    .addOption(headSteps === 0 ? head.default(0) : head.default(undefined, 'a fifth of all'))
    .option('--label-smoothing <ε>', 'share of the target that is spread over all classes', realNumber(0, 0.99), 0)
    .option('--mixup <α>', 'mix pictures and targets with λ ~ Beta(α, α); 0: not', realNumber(0), 0)
    .option('--evaluate-every <n>', 'steps between evaluations (default: a twentieth of all)', wholeNumber(1))
    .option('--patience <n>', 'stop after so many evaluations without improvement; 0: never', wholeNumber(0), 0)
    .addOption(
      new Option(
        '--batch-norm <by>',
        'ResNets: running: statistics of pretraining; batch: of each batch (default: batch, where norms are trained)',
      ).choices(['running', 'batch']),
    )
    .addOption(new Option('--precision <name>', 'of activations').choices(['fp32', 'bf16']).default('fp32'))
    .option('--flip <share>', 'pictures mirrored in training', realNumber(0, 1), 0)
    .option('--scale <share>', 'least area of the random crop', realNumber(0.01, 1), 0.7);
}

/** @throws CoveyError INVALID_ARGUMENT naming each option that does not fit */
export function recipeOf(options: TuneOptions): TuneRecipe {
  const adapter = adapterOf(options);
  if (adapter !== undefined && options.headOnly === true) {
    throw new CoveyError('INVALID_ARGUMENT', 'Cannot fine-tune: --adapter and --head-only are both given; use one');
  }
  const { steps, unlockedGroups } = options;
  const parsed = tuneRecipeSchema.safeParse({
    method: adapter !== undefined ? 'adapter' : options.headOnly ? 'head' : 'full',
    ...(adapter ? { adapter } : {}),
    seed: options.seed,
    steps,
    batch: options.batch,
    lr: options.lr,
    warmupSteps: options.warmup ?? Math.floor(steps / 10),
    schedule: options.schedule,
    optimizer: options.optimizer,
    weightDecay: options.weightDecay,
    ...(options.backboneLr === undefined ? {} : { backboneLrScale: options.backboneLr }),
    ...(options.layerDecay === undefined ? {} : { layerDecay: options.layerDecay }),
    ...(unlockedGroups === undefined ? {} : { unlockedGroups }),
    headSteps: options.headSteps ?? Math.round(steps / 5),
    labelSmoothing: options.labelSmoothing,
    mixup: options.mixup,
    // A head, LoRA and bottlenecks leave the norms alone.
    batchNorm: options.batchNorm ?? (adapter?.kind === 'conv' || (!adapter && !options.headOnly) ? 'batch' : 'running'),
    precision: options.precision,
    evaluateEverySteps: options.evaluateEvery ?? Math.max(1, Math.round(steps / 20)),
    patience: options.patience,
    augment: { scale: [options.scale, 1], flip: options.flip },
  });
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`);
  throw new CoveyError('INVALID_ARGUMENT', `Cannot fine-tune: ${problems.join('; ')}`, { fields: { problems } });
}

function adapterOf({ adapter, rank, width }: TuneOptions): AdapterOptions | undefined {
  switch (adapter) {
    case undefined:
      return undefined;
    case 'lora':
      return { kind: 'lora', rank, alpha: 2 * rank, targets: 'all' };
    case 'bottleneck':
      return { kind: 'bottleneck', width };
    case 'conv-series':
      return { kind: 'conv', placement: 'series' };
    case 'conv-parallel':
      return { kind: 'conv', placement: 'parallel' };
  }
}
