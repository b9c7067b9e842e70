import type { Command } from 'commander';
import type { StepRecord } from '../../proto/gen/covey/v1/StepRecord.ts';
import { EXIT } from '../exit-codes.ts';
import { eventText } from '../follow-run.ts';
import { formatBytes, formatNumber } from '../format.ts';
import { wholeNumber } from '../option-values.ts';
import { runCommand } from '../run-command.ts';
import { withRunClient } from '../run-connection.ts';
import { stepAsJson } from '../run-view.ts';

/** No message for this long: the replay is over. */
const QUIET_MS = 1500;

interface LogsOptions {
  readonly follow?: boolean;
  readonly afterStep: number;
}

export function addLogsCommand(program: Command): void {
  program
    .command('logs')
    .description('print the steps and events of a run, as far back as the coordinator remembers')
    .argument('<run>', 'name of the run')
    .option('-f, --follow', 'go on until the run ends')
    .option('--after-step <n>', 'only steps after this one', wholeNumber(0), 0)
    .action(
      runCommand<LogsOptions>((context, [name = ''], options) =>
        withRunClient(context, async (client) => {
          const { output } = context;
          const { step: upTo } = await client.getRun(name, { signal: context.signal });
          // Watching is replay, then live. Without --follow it ends once the replay has caught up with the run as it was, or when
          // nothing more comes: a coordinator that was restarted remembers fewer steps than the run has.
          const quiet = new AbortController();
          const timer = setTimeout(() => quiet.abort(), QUIET_MS);
          if (options.follow) clearTimeout(timer);
          const signal = AbortSignal.any([context.signal, quiet.signal]);
          try {
            for await (const { step, event } of client.watchRun(name, { afterStep: options.afterStep, signal })) {
              if (step) output.line({ type: 'step', ...stepAsJson(step) }, stepText(step));
              else if (event) output.line({ type: 'event', ...event }, eventText(event));
              if (options.follow) continue;
              timer.refresh();
              if (step && step.step >= upTo) break;
            }
          } catch (thrown) {
            if (!quiet.signal.aborted) throw thrown;
          } finally {
            clearTimeout(timer);
          }
          return EXIT.ok;
        }),
      ),
    );
}

function stepText(step: StepRecord): string {
  const time = new Date(step.timeSeconds * 1000).toISOString().slice(11, 19);
  const parts = [
    `step ${step.step}`,
    `loss ${formatNumber(step.loss, 4)}`,
    `scale ${formatNumber(step.logitScale, 2)}`,
    `grad ${formatNumber(step.gradNorm, 3)}`,
    `lr ${step.learningRate.toExponential(2)}`,
    `${formatNumber(step.stepSeconds, 3)} s`,
    ...(step.peakMemoryBytes > 0 ? [`peak ${formatBytes(step.peakMemoryBytes)}`] : []),
    `g${step.generation}`,
  ];
  return `${time}  step        ${parts.join('  ')}${step.skipped ? '  SKIPPED (not finite)' : ''}`;
}
