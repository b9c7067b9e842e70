import type { RunConfig } from '../../common/config/run-config.ts';
import { CoveyError } from '../../common/errors.ts';
import type { Run } from '../../proto/gen/covey/v1/Run.ts';
import type { RunClient } from '../../proto/run-client.ts';
import { isEnded, stateName } from '../run-view.ts';
import { ObservedRun, type ObservedStep } from './observed-run.ts';

export interface TrainRunOptions {
  readonly config: RunConfig;
  /** The run may stand still this long before the demo gives up, ms: starting, or recovering from the kill. */
  readonly stallMs?: number;
}

export interface TrainRunHooks {
  readonly onStep?: (step: ObservedStep, observed: ObservedRun) => void;
  readonly onEvent?: (kind: string, message: string) => void;
}

export interface TrainedRun {
  readonly run: Run;
  readonly observed: ObservedRun;
}

const STALL_MS = 120_000;

/**
 * Submits a run and watches it to its end, as `covey launch` does.
 * @throws CoveyError ABORTED where the run did not finish (with its reason), TIMEOUT where it stands still, CANCELLED
 */
export async function trainRun(
  options: TrainRunOptions,
  modules: { readonly client: RunClient; readonly signal: AbortSignal },
  hooks: TrainRunHooks = {},
): Promise<TrainedRun> {
  const { config, stallMs = STALL_MS } = options;
  const { client } = modules;
  const observed = new ObservedRun();
  const stalled = new AbortController();
  const giveUp = () =>
    stalled.abort(
      new CoveyError(
        'TIMEOUT',
        `Cannot go on with run ${config.run}: no step within ${stallMs / 1000} s; the workers' logs say why`,
        {
          fields: { run: config.run, waitingFor: 'the next step' },
        },
      ),
    );
  let timer = setTimeout(giveUp, stallMs);
  const signal = AbortSignal.any([modules.signal, stalled.signal]);
  try {
    await client.submitRun(JSON.stringify(config), { signal });
    for (;;) {
      const afterStep = observed.lastStep;
      try {
        for await (const response of client.watchRun(config.run, { afterStep, signal })) {
          const step = observed.observe(response);
          if (response.event) hooks.onEvent?.(response.event.kind, response.event.message);
          if (step) {
            clearTimeout(timer);
            timer = setTimeout(giveUp, stallMs);
            hooks.onStep?.(step, observed);
          }
        }
      } catch (thrown) {
        // A watcher that fell behind watches again from where it was.
        if (!CoveyError.is(thrown, 'RESOURCE_EXHAUSTED')) throw thrown;
      }
      const run = await client.getRun(config.run, { signal });
      if (isEnded(run.state)) return { run: finished(run), observed };
    }
  } catch (thrown) {
    if (stalled.signal.aborted) throw CoveyError.from(stalled.signal.reason);
    throw thrown;
  } finally {
    clearTimeout(timer);
  }
}

function finished(run: Run): Run {
  if (stateName(run.state) === 'finished') return run;
  throw new CoveyError(
    'ABORTED',
    `Cannot finish the demo: run ${run.run} ${stateName(run.state)} at step ${run.step}: ${run.reason}`,
    {
      fields: { run: run.run, state: stateName(run.state), step: run.step },
    },
  );
}
