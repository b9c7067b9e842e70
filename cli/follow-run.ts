import { CoveyError } from '../common/errors.ts';
import type { Run } from '../proto/gen/covey/v1/Run.ts';
import type { WatchRunResponse } from '../proto/gen/covey/v1/WatchRunResponse.ts';
import type { RunClient } from '../proto/run-client.ts';
import type { CommandContext } from './context.ts';
import { evaluationAsJson, isEnded, metricTexts, progressText, runAsJson, stateName, stepAsJson } from './run-view.ts';
import { StatusLine } from './status-line.ts';

/** How long a coordinator may be away (restarted, say) before following a run gives up. */
const COORDINATOR_AWAY_MS_MAX = 60_000;
const RECONNECT_PAUSE_MS = 500;

export interface FollowOptions {
  /** Show what happens after this step. Default 0: all the coordinator remembers. */
  readonly afterStep?: number;
  /** With --json: print each step and event as a JSON line. */
  readonly jsonLines?: boolean;
}

/**
 * Shows a run until it ends: a status line and its events. Survives a restart of the coordinator. Returns the run as it ended.
 * Throws CANCELLED when the context's signal aborts: the run itself goes on.
 */
export async function followRun(
  client: RunClient,
  name: string,
  context: CommandContext,
  options: FollowOptions = {},
): Promise<Run> {
  const { clock, signal } = context;
  const line = new StatusLine(context.output, () => clock.now());
  let seen = options.afterStep ?? 0;
  let last: Run | undefined;
  let awaySinceMs: number | undefined;
  try {
    for (;;) {
      try {
        for await (const response of client.watchRun(name, { afterStep: seen, signal })) {
          awaySinceMs = undefined;
          last = response.run ?? last;
          if (response.step) seen = Math.max(seen, response.step.step);
          if (context.output.json) {
            if (options.jsonLines) printJsonLine(response, context);
          } else show(response, last, line);
          if (response.run && isEnded(response.run.state)) return response.run;
        }
        const run = await client.getRun(name, { signal });
        if (isEnded(run.state)) return run;
      } catch (thrown) {
        if (!CoveyError.is(thrown, 'UNAVAILABLE', 'RESOURCE_EXHAUSTED')) throw thrown;
        awaySinceMs ??= clock.now();
        if (clock.now() - awaySinceMs > COORDINATOR_AWAY_MS_MAX) throw thrown;
        line.print('the coordinator does not answer; waiting for it');
      }
      await clock.sleep(RECONNECT_PAUSE_MS, signal);
    }
  } finally {
    line.close();
  }
}

function printJsonLine(response: WatchRunResponse, { output }: CommandContext): void {
  const { event, step, run, evaluation } = response;
  if (evaluation) output.line({ type: 'evaluation', ...evaluationAsJson(evaluation) }, '');
  else if (step) output.line({ type: 'step', ...stepAsJson(step) }, '');
  else if (event) output.line({ type: 'event', ...event }, '');
  else if (run) output.line({ type: 'run', ...runAsJson(run) }, '');
}

function show(response: WatchRunResponse, run: Run | undefined, line: StatusLine): void {
  const { event, step, evaluation } = response;
  if (evaluation) line.print(`step ${evaluation.step} evaluated: ${metricTexts(evaluation.metrics).join(', ')}`);
  if (event && event.kind !== 'step') line.print(eventText(event));
  if (run) line.update(progressText(step ? { ...run, step: step.step, lastStep: step } : run));
}

/** An event as a line of text. */
export function eventText(event: NonNullable<WatchRunResponse['event']>): string {
  const time = new Date(event.timeSeconds * 1000).toISOString().slice(11, 19);
  return `${time}  ${event.kind.padEnd(10)}  ${event.message}`;
}

/** How a followed run ended, in words. */
export function endText(run: Run): string {
  const loss = run.lastStep ? `, loss ${run.lastStep.loss.toFixed(4)}` : '';
  return `run ${run.run} ${stateName(run.state)} at step ${run.step} of ${run.totalSteps}${loss}${run.reason ? ` (${run.reason})` : ''}`;
}
