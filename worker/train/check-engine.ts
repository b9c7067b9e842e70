import { objectiveParts } from '../../common/config/loss-config.ts';
import type { RunConfig } from '../../common/config/run-config.ts';
import { CoveyError } from '../../common/errors.ts';
import { type EngineName, engineCapabilities } from '../../engine/capabilities.ts';
import { stepCost } from '../../models/clip/step-cost.ts';
import { resolveModelConfig } from '../../models/model-config.ts';
import { encodedPictures, objectiveInputs } from '../objectives/objective-inputs.ts';
import { parameterSpecsFor } from '../objectives/trained-parameters.ts';

/** A step longer than this is a mistake, not a run: leases and collectives would time out around it. */
const STEP_SECONDS_MAX = 600;
/** A step longer than this is worth a word. */
const STEP_SECONDS_WARN = 30;
/** Weights, at most two slots of the optimiser, the flat gradient and its copy. */
const FLOATS_PER_PARAMETER = 5;

export interface EngineVerdict {
  /** Rough: one thread, `workers.expected` workers. */
  readonly secondsPerStep: number;
  readonly warnings: readonly string[];
}

/**
 * Whether an engine can train what a run asks for. Pure: the command line asks before it submits, the worker before it loads the engine.
 * `auto` cannot be judged before it is known what it is; pass the name of the engine that was loaded.
 *
 * @throws CONFIG_INVALID with what to use instead
 */
export function checkEngineFor(config: RunConfig, engine: EngineName): EngineVerdict {
  const { multiplyAddsPerSecond, memoryBytesMax, precisions, threads, train } = engineCapabilities(engine);
  const model = resolveModelConfig(config.model);
  const parts = objectiveParts(config).map(({ objective }) => objective);
  const views = parts.reduce((sum, part) => sum + encodedPictures(part).learnt, 0);
  const { captions } = objectiveInputs(config);
  const cost = stepCost(model, parameterSpecsFor(config, model), { views, captions });
  const samples = config.train.globalBatch / config.workers.expected;
  const secondsPerStep = (cost.multiplyAddsPerSample * samples) / multiplyAddsPerSecond;
  const floats = FLOATS_PER_PARAMETER + (config.train.ema ? 1 : 0);
  const memoryBytes = cost.activationBytesPerSample * heldSamples(config) + 4 * floats * cost.parameters;
  const seconds = `about ${secondsPerStep.toPrecision(2)} s`;
  const problems: string[] = [];
  if (train !== true) problems.push(train);
  // The others may have many cores or a GPU: no guess is good enough to refuse them.
  if (!threads && secondsPerStep > STEP_SECONDS_MAX) {
    problems.push(
      `a step would take ${seconds} on one worker of ${config.workers.expected}, more than ${STEP_SECONDS_MAX} s`,
    );
  }
  if (memoryBytes > memoryBytesMax) {
    const gigabytes = (bytes: number) => `${(bytes / 1e9).toPrecision(2)} GB`;
    problems.push(`a worker would need about ${gigabytes(memoryBytes)}, the engine has ${gigabytes(memoryBytesMax)}`);
  }
  if (problems.length > 0) {
    const message = `engine ${engine} cannot train this: ${problems.join('; ')}. Use the engine torch (${engineCapabilities('torch').install}), a smaller model or batch, or more workers`;
    throw new CoveyError('CONFIG_INVALID', `Cannot start run ${config.run}: workers.engine: ${message}`, {
      fields: { problems: [{ path: 'workers.engine', message, value: engine }] },
    });
  }
  const warnings: string[] = [];
  if (!precisions.includes(config.train.precision)) {
    warnings.push(`engine ${engine} has no ${config.train.precision}: it computes in fp32`);
  }
  if (!threads && secondsPerStep > STEP_SECONDS_WARN) warnings.push(`engine ${engine} is slow: ${seconds} per step`);
  return { secondsPerStep, warnings };
}

/** Samples whose activations a worker holds at once. */
function heldSamples({ train, workers }: RunConfig): number {
  const { globalBatch, lanes, gradCache, microBatch } = train;
  const laneBatch = globalBatch / lanes;
  if (typeof microBatch === 'number' && microBatch < laneBatch) return microBatch;
  return gradCache || microBatch === 'auto' ? laneBatch : globalBatch / workers.expected;
}
