import { assert, CoveyError } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';
import type { ComputeHandle } from './compute-handle.ts';
import type { LaneSlot, StepReply } from './compute-protocol.ts';
import type { ConsumedLane } from './sample-log.ts';

/** A step's inputs in shared memory, and who they were. `release` gives the memory back to the loader. */
export interface LoadedStep {
  readonly step: number;
  readonly lanes: readonly LaneSlot[];
  readonly consumed: readonly ConsumedLane[];
  /** Of this worker's lanes, by the dataset's name. */
  readonly samplesByDataset: Readonly<Record<string, number>>;
  readonly replaced: readonly { readonly sampleId: string; readonly reason: string; readonly replacedBy: string }[];
  release(): void;
}

export interface AppliedStep {
  readonly loaded: LoadedStep;
  readonly reply: StepReply;
  /** Wall time since the previous step was applied, seconds. */
  readonly wallSeconds: number;
  /** Time the loop waited for data, seconds. */
  readonly dataSeconds: number;
}

export interface StepLoopOptions {
  readonly generation: number;
  readonly startStep: number;
  readonly totalSteps: number;
}

export interface StepLoopModules {
  readonly compute: ComputeHandle;
  /** Waits for the step's data. */
  readonly load: (step: number, signal: AbortSignal) => Promise<LoadedStep>;
  /** Called once per applied step, in order. */
  readonly onApplied: (applied: AppliedStep) => void;
  /** The step that was being computed is given up; it will be computed again. */
  readonly onGivenUp: (loaded: LoadedStep) => void;
  /** Called right after step `step - 1` was handed to the compute thread; may queue a snapshot behind it. */
  readonly afterQueued: (step: number) => void;
  /** Whether the weights after `step` updates are evaluated. Default never. */
  readonly evaluationDue?: (step: number) => boolean;
  /** Evaluates them; no step is in flight meanwhile. */
  readonly evaluate?: (step: number, signal: AbortSignal) => Promise<void>;
  readonly logger: Logger;
}

/** Steps handed to the compute thread ahead of time, so that it never waits for this thread's event loop. */
const STEPS_QUEUED_MAX = 2;

interface Queued {
  readonly loaded: LoadedStep;
  readonly reply: Promise<StepReply>;
  readonly dataSeconds: number;
}

/**
 * Steps until the run's last step, or until `signal` aborts (resolves then, with what was in flight either applied or given
 * up). Rejects with the first error that is not an abandonment: TIMEOUT, NON_FINITE, DATA_CORRUPT, …
 */
export async function runSteps(options: StepLoopOptions, modules: StepLoopModules, signal: AbortSignal): Promise<void> {
  const { compute } = modules;
  const { epoch } = compute;
  const queue: Queued[] = [];
  let next = options.startStep;
  const due = (step: number) => modules.evaluationDue?.(step) ?? false;
  try {
    // What the generation before began to evaluate, or was about to: every member knows it from the step alone.
    if (due(next)) await modules.evaluate?.(next, signal);
    let lastAppliedAt = performance.now();
    while (!signal.aborted && (next < options.totalSteps || queue.length > 0)) {
      while (queue.length < STEPS_QUEUED_MAX && next < options.totalSteps && !signal.aborted) {
        // The weights of this step are evaluated first.
        if (queue.length > 0 && due(next)) break;
        const began = performance.now();
        const loaded = await modules.load(next, signal);
        const reply = compute.request({
          kind: 'step',
          epoch,
          generation: options.generation,
          step: next,
          lanes: loaded.lanes,
        });
        // Handled when its turn comes; until then a rejection must not count as unhandled.
        reply.catch(() => undefined);
        queue.push({ loaded, reply, dataSeconds: (performance.now() - began) / 1000 });
        next++;
        modules.afterQueued(next);
      }
      const first = queue[0];
      assert(first !== undefined, 'a step is in flight');
      const reply = await first.reply;
      queue.shift();
      const now = performance.now();
      const wallSeconds = (now - lastAppliedAt) / 1000;
      const applied = first.loaded.step + 1;
      const isLast = applied === options.totalSteps;
      try {
        // The run is over as soon as its last step is committed.
        if (isLast && due(applied)) await modules.evaluate?.(applied, signal);
      } finally {
        modules.onApplied({ loaded: first.loaded, reply, wallSeconds, dataSeconds: first.dataSeconds });
        first.loaded.release();
      }
      if (!isLast && due(applied)) await modules.evaluate?.(applied, signal);
      lastAppliedAt = performance.now();
    }
  } catch (thrown) {
    const error = CoveyError.from(thrown);
    if (!signal.aborted || !CoveyError.is(error, 'ABORTED', 'CANCELLED')) throw error;
  } finally {
    await settle(queue, modules);
  }
}

/** What was handed over is either applied after all (its collectives had completed) or given up; only then may its memory go. */
async function settle(queue: Queued[], modules: StepLoopModules): Promise<void> {
  modules.compute.abandonQueued();
  for (const [place, { loaded, reply, dataSeconds }] of queue.entries()) {
    await reply.then(
      (value) => modules.onApplied({ loaded, reply: value, wallSeconds: value.stepSeconds, dataSeconds }),
      (error: CoveyError) => {
        modules.logger.debug({ step: loaded.step, reason: error.message }, 'step given up');
        // Those behind it were not begun.
        if (place === 0) modules.onGivenUp(loaded);
      },
    );
    loaded.release();
  }
}
