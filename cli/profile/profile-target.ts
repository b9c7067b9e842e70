import { readFile } from 'node:fs/promises';
import { type ModelConfig, runConfigSchema } from '../../common/config/run-config.ts';
import { CoveyError } from '../../common/errors.ts';
import { type EngineName, engineCapabilities } from '../../engine/capabilities.ts';
import { resolveModelConfig } from '../../models/model-config.ts';
import { presets } from '../../models/presets.ts';
import { checkTowerFor } from '../../worker/objectives/check-tower.ts';
import { checkModelFor } from '../../worker/objectives/objective-inputs.ts';
import type { TrainingConfig } from '../../worker/train/new-trainer.ts';
import { readConfig } from '../commands/config.ts';
import type { CommandContext } from '../context.ts';
import { DEMO_MODEL, DEMO_MODEL_WITHOUT_ADDON } from '../demo/recipe.ts';

/** What is profiled: a model and how it is trained. */
export interface ProfileTarget {
  /** For people: the file, the preset or `demo`. */
  readonly name: string;
  readonly model: ModelConfig;
  readonly training: TrainingConfig;
}

export interface TargetOptions {
  readonly sets?: readonly string[] | undefined;
  readonly precision?: 'fp32' | 'bf16' | undefined;
  readonly batch?: number | undefined;
  readonly lanes?: number | undefined;
  readonly engine: EngineName;
}

/** A preset says nothing about the batch: one that a laptop can hold. */
const PRESET_BATCH = 32;

/**
 * A run's config, a preset, or without a name the demo's model as the demo trains it.
 * @throws CoveyError NOT_FOUND, CONFIG_INVALID or INVALID_ARGUMENT
 */
export async function profileTarget(
  context: CommandContext,
  name: string | undefined,
  options: TargetOptions,
): Promise<ProfileTarget> {
  const found = await baseTarget(context, name, options);
  const { train } = found.training;
  const globalBatch = options.batch ?? train.globalBatch;
  const lanes = options.lanes ?? Math.min(train.lanes, globalBatch);
  if (globalBatch % lanes !== 0) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot profile: the lanes must divide the batch of ${globalBatch}: there are ${lanes}; set --batch or --lanes`,
      { fields: { globalBatch, lanes } },
    );
  }
  const wanted = options.precision ?? train.precision;
  const precision = engineCapabilities(options.engine).precisions.includes(wanted) ? wanted : 'fp32';
  return { ...found, training: { ...found.training, train: { ...train, globalBatch, lanes, precision } } };
}

async function baseTarget(
  context: CommandContext,
  name: string | undefined,
  { sets, engine }: TargetOptions,
): Promise<ProfileTarget> {
  if (name !== undefined && !Object.hasOwn(presets, name)) {
    await expectFile(name);
    const { config } = await readConfig(context, name, sets);
    const model = resolveModelConfig(config.model);
    checkModelFor(config, model);
    checkTowerFor(config, model);
    return { name, model, training: config };
  }
  if (sets !== undefined)
    throw new CoveyError('INVALID_ARGUMENT', 'Cannot use --set: it changes a config file, and none is given');
  if (name !== undefined) return synthetic(name, resolveModelConfig(name), { globalBatch: PRESET_BATCH, lanes: 1 });
  return engine === 'torch'
    ? synthetic('demo', DEMO_MODEL, { globalBatch: 256, lanes: 2 })
    : synthetic('demo', DEMO_MODEL_WITHOUT_ADDON, { globalBatch: 64, lanes: 2 });
}

function synthetic(name: string, model: ModelConfig, train: { globalBatch: number; lanes: number }): ProfileTarget {
  const training = runConfigSchema.parse({
    run: 'profile',
    store: 'file:///unused',
    model,
    data: { manifest: 'file:///unused' },
    train: { ...train, steps: 1, precision: 'bf16' },
  });
  return { name, model, training };
}

/** A misspelt preset looks like a file that is not there: say both. */
async function expectFile(name: string): Promise<void> {
  try {
    await readFile(name);
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'ENOENT') return;
    throw new CoveyError(
      'NOT_FOUND',
      `Cannot profile: '${name}' is neither a file nor a preset; there are ${Object.keys(presets).join(', ')}`,
      { fields: { name } },
    );
  }
}
