import type { RunConfig } from '../../common/config/run-config.ts';
import type { Run } from '../../proto/gen/covey/v1/Run.ts';
import type { ZeroShotResult } from '../../worker/eval/zeroshot.ts';
import type { DemoDataset } from './dataset.ts';
import type { ObservedRun, ObservedStep } from './observed-run.ts';
import type { SampleAudit } from './sample-audit.ts';

/** The last line of `covey demo --json`. Every figure was measured in this run. */
export interface DemoSummary {
  /** Fractions of 1. */
  readonly zeroShotTop1: number;
  readonly zeroShotTop5: number;
  readonly classes: number;
  readonly heldOut: string;
  /** From the beginning of the first step to the commit of the last one, the recovery included. */
  readonly trainSeconds: number;
  readonly steps: number;
  /** Over trainSeconds. */
  readonly samplesPerSecond: number;
  readonly globalBatch: number;
  readonly workers: number;
  /** Workers killed on purpose. */
  readonly killed: number;
  /** From SIGKILL to the next committed step; null where none was killed. */
  readonly recoverySeconds: number | null;
  /** From SIGKILL to the first step with the replacement; null likewise, or where it did not join in time. */
  readonly replacedSeconds: number | null;
  readonly samplesLost: number;
  readonly samplesDuplicated: number;
  /** See SampleAudit.unlogged. */
  readonly samplesUnlogged: number;
  readonly samplesPlanned: number;
  readonly finalLoss: number;
  /** Key of the last checkpoint's manifest in the run's store. */
  readonly checkpoint: string;
  /** Path of the HTML file. */
  readonly report: string;
  readonly run: string;
  readonly store: string;
  readonly trainSamples: number;
  readonly epochs: number;
  readonly engine: string;
  readonly seed: number;
  /** From the start of the command to the first training step, calibration before it. */
  readonly secondsToTraining: number;
  readonly totalSeconds: number;
}

export interface SummaryInputs {
  readonly config: RunConfig;
  readonly dataset: DemoDataset;
  readonly heldOut: string;
  readonly workers: number;
  readonly run: Run;
  readonly observed: ObservedRun;
  readonly zeroShot: ZeroShotResult;
  readonly audit: SampleAudit;
  readonly report: string;
  readonly secondsToTraining: number;
  readonly totalSeconds: number;
}

export function summarise(inputs: SummaryInputs): DemoSummary {
  const { config, dataset, observed, zeroShot, audit, run } = inputs;
  const { steps } = observed;
  const trainSeconds = trainingSeconds(steps);
  const { globalBatch } = config.train;
  return {
    zeroShotTop1: zeroShot.top1,
    zeroShotTop5: zeroShot.top5,
    classes: zeroShot.classes,
    heldOut: inputs.heldOut,
    trainSeconds: rounded(trainSeconds, 1),
    steps: run.step,
    samplesPerSecond: rounded((run.step * globalBatch) / trainSeconds, 1),
    globalBatch,
    workers: inputs.workers,
    killed: observed.kill ? 1 : 0,
    recoverySeconds: observed.recoverySeconds === undefined ? null : rounded(observed.recoverySeconds, 2),
    replacedSeconds: observed.replacedSeconds === undefined ? null : rounded(observed.replacedSeconds, 2),
    samplesLost: audit.lost,
    samplesDuplicated: audit.duplicated,
    samplesUnlogged: audit.unlogged,
    samplesPlanned: audit.planned,
    finalLoss: steps.at(-1)?.loss ?? Number.NaN,
    checkpoint: run.lastCheckpoint?.manifestKey ?? '',
    report: inputs.report,
    run: run.run,
    store: config.store,
    trainSamples: dataset.trainSamples,
    epochs: rounded((run.step * globalBatch) / dataset.trainSamples, 1),
    engine: config.workers.engine,
    seed: config.seed,
    secondsToTraining: rounded(inputs.secondsToTraining, 1),
    totalSeconds: rounded(inputs.totalSeconds, 1),
  };
}

/** From the beginning of the first step seen to the commit of the last one. */
export function trainingSeconds(steps: readonly ObservedStep[]): number {
  const first = steps[0];
  const last = steps.at(-1);
  return first && last ? last.timeSeconds - first.timeSeconds + first.stepSeconds : 0;
}

function rounded(value: number, decimals: number): number {
  return Number(value.toFixed(decimals));
}
