import { setImmediate } from 'node:timers/promises';
import { CoveyError } from '../../common/errors.ts';
import type { Engine } from '../../engine/index.ts';
import { attribute } from '../../engine/profile/attribution.ts';
import {
  type InnerRow,
  innerTable,
  type KernelRow,
  kernelTable,
  type MachinePeaks,
} from '../../engine/profile/kernel-table.ts';
import { betterPeaks, measurePeaks } from '../../engine/profile/machine-peaks.ts';
import { type MemoryProfile, memoryProfile } from '../../engine/profile/memory-profile.ts';
import { type ModuleNode, moduleTree } from '../../engine/profile/module-tree.ts';
import { startProfile } from '../../engine/profile/profile.ts';
import type { ProfileRecord } from '../../engine/profile/record.ts';
import type { StepFlops } from '../../models/clip/step-flops.ts';
import { objectiveInputs } from '../../worker/objectives/objective-inputs.ts';
import { SoloCollectives } from '../../worker/train/blocking-collectives.ts';
import { newTrainer } from '../../worker/train/new-trainer.ts';
import { stepFlops } from '../../worker/train/step-flops.ts';
import { syntheticLanes } from '../../worker/train/synthetic-lanes.ts';
import type { ProfileTarget } from './profile-target.ts';

export interface RunProfileOptions {
  readonly steps: number;
  readonly warmupSteps: number;
  readonly captionTokens?: number | undefined;
  readonly innerOperators: boolean;
  readonly signal: AbortSignal;
  readonly onStep?: (done: number, all: number) => void;
}

/** A profile, added up. This is what --json prints; keys are stable. */
export interface ProfileReport {
  readonly target: string;
  readonly engine: string;
  readonly description: string;
  readonly threads: number;
  readonly precision: string;
  readonly globalBatch: number;
  readonly lanes: number;
  /** Of each caption; 0 where the objective takes none. */
  readonly captionTokens: number;
  readonly steps: number;
  readonly stepMs: { readonly median: number; readonly min: number; readonly max: number };
  /** The last warm-up step, which nothing recorded: the difference is the profile's own cost, and noise. */
  readonly unprofiledStepMs: number;
  /** Mean per step, inside and outside kernels. */
  readonly kernelMs: number;
  readonly outsideKernelsMs: number;
  readonly peaks: MachinePeaks;
  readonly modelFlops: StepFlops;
  readonly flopsPerSecond: number;
  /** Share of the GEMM peak that the median step's useful products reach. */
  readonly gemmShare: number;
  readonly kernels: readonly KernelRow[];
  readonly innerOperators: readonly InnerRow[];
  readonly modules: ModuleNode;
  readonly memory: MemoryProfile;
  readonly dropped: number;
}

/**
 * Trains a few steps on noise in this thread, as a worker with all lanes does, and profiles all but the first ones. Between steps it
 * yields, so that a signal can end it.
 */
export async function runProfile(
  engine: Engine,
  { name, model: modelConfig, training }: ProfileTarget,
  options: RunProfileOptions,
): Promise<{ readonly report: ProfileReport; readonly record: ProfileRecord }> {
  const { globalBatch, lanes: laneCount, precision } = training.train;
  const inputs = objectiveInputs(training);
  const captionTokens = inputs.captions
    ? Math.min(options.captionTokens ?? Infinity, modelConfig.text.contextLength)
    : 0;
  const lanes = syntheticLanes(modelConfig, {
    lanes: laneCount,
    laneBatch: globalBatch / laneCount,
    ...(inputs.captions ? { captionTokens } : {}),
    inputs,
  });
  const before = measurePeaks(engine, precision);
  const { model, trainer } = newTrainer(training, modelConfig, engine);
  let measured: Measured;
  try {
    trainer.holdLanes(0, laneCount);
    const collectives = new SoloCollectives(laneCount, (target, source) => engine.addVectors(target, source));
    measured = await measureSteps(engine, (step) => trainer.step(step, LEARNING_RATE, lanes, collectives), options);
  } finally {
    trainer.dispose();
    model.dispose();
  }
  const peaks = betterPeaks(before, measurePeaks(engine, precision));
  const modelFlops = stepFlops(training, modelConfig, lanes);
  const about = {
    target: name,
    engine: engine.name,
    description: engine.description,
    threads: engine.threads,
    precision,
    globalBatch,
    lanes: laneCount,
    captionTokens,
  };
  return { report: { ...about, ...summarise(measured, peaks, modelFlops) }, record: measured.record };
}

/** The weights' values do not matter, but they should stay finite. */
const LEARNING_RATE = 1e-5;

interface Measured {
  readonly record: ProfileRecord;
  readonly unprofiledStepMs: number;
}

async function measureSteps(
  engine: Engine,
  step: (index: number) => unknown,
  { steps, warmupSteps, innerOperators, signal, onStep }: RunProfileOptions,
): Promise<Measured> {
  const all = warmupSteps + steps;
  let unprofiledStepMs = Number.NaN;
  const pause = async (done: number): Promise<void> => {
    onStep?.(done, all);
    await setImmediate();
    if (signal.aborted) throw CoveyError.from(signal.reason);
  };
  for (let index = 0; index < warmupSteps; index++) {
    await pause(index);
    const began = performance.now();
    step(index);
    unprofiledStepMs = performance.now() - began;
  }
  const profile = startProfile(engine, { innerOperators });
  let record: ProfileRecord;
  try {
    for (let index = warmupSteps; index < all; index++) {
      await pause(index);
      profile.step(index, () => step(index));
    }
  } finally {
    record = profile.stop();
  }
  return { record, unprofiledStepMs };
}

function summarise({ record, unprofiledStepMs }: Measured, peaks: MachinePeaks, modelFlops: StepFlops) {
  const attribution = attribute(record);
  const times = attribution.steps.map(({ startedNs, endedNs }) => (endedNs - startedNs) / 1e6).sort((a, b) => a - b);
  const middle = times[Math.floor(times.length / 2)]!;
  const mean = times.reduce((sum, ms) => sum + ms, 0) / times.length;
  const kernels = kernelTable(attribution, peaks);
  const kernelMs = kernels.reduce((sum, { msPerStep }) => sum + msPerStep, 0);
  const flopsPerSecond = modelFlops.total / (middle / 1000);
  return {
    steps: times.length,
    stepMs: { median: middle, min: times[0]!, max: times.at(-1)! },
    unprofiledStepMs,
    kernelMs,
    outsideKernelsMs: mean - kernelMs,
    peaks,
    modelFlops,
    flopsPerSecond,
    gemmShare: flopsPerSecond / peaks.gemmFlops,
    kernels,
    innerOperators: innerTable(attribution),
    modules: moduleTree(attribution),
    memory: memoryProfile(record),
    dropped: record.dropped,
  };
}
