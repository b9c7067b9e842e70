import type { Command } from 'commander';
import type { Evaluation } from '../../proto/gen/covey/v1/Evaluation.ts';
import type { StepRecord } from '../../proto/gen/covey/v1/StepRecord.ts';
import { EXIT } from '../exit-codes.ts';
import { eventText } from '../follow-run.ts';
import { formatBytes, formatNumber } from '../format.ts';
import { wholeNumber } from '../option-values.ts';
import { runCommand } from '../run-command.ts';
import { withRunClient } from '../run-connection.ts';
import { evaluationAsJson, metricTexts, stepAsJson } from '../run-view.ts';

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
          const { step: upTo, lastEvaluation } = await client.getRun(name, { signal: context.signal });
          // Watching is replay, then live. Without --follow it ends once the replay has caught up with the run as it was, or when
          // nothing more comes: a coordinator that was restarted remembers fewer steps than the run has.
          const quiet = new AbortController();
          const timer = setTimeout(() => quiet.abort(), QUIET_MS);
          if (options.follow) clearTimeout(timer);
          const signal = AbortSignal.any([context.signal, quiet.signal]);
          const seen = { step: 0, evaluation: 0 };
          try {
            for await (const { step, event, evaluation } of client.watchRun(name, {
              afterStep: options.afterStep,
              signal,
            })) {
              if (evaluation)
                output.line({ type: 'evaluation', ...evaluationAsJson(evaluation) }, evaluationText(evaluation));
              else if (step) output.line({ type: 'step', ...stepAsJson(step) }, stepText(step));
              else if (event) output.line({ type: 'event', ...event }, eventText(event));
              if (options.follow) continue;
              timer.refresh();
              seen.step = Math.max(seen.step, step?.step ?? 0);
              seen.evaluation = Math.max(seen.evaluation, evaluation?.step ?? 0);
              if (seen.step >= upTo && seen.evaluation >= (lastEvaluation?.step ?? 0)) break;
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

function evaluationText({ step, metrics, seconds, timeSeconds }: Evaluation): string {
  const time = new Date(timeSeconds * 1000).toISOString().slice(11, 19);
  return `${time}  evaluated   step ${step}  ${metricTexts(metrics).join('  ')}  ${formatNumber(seconds, 1)} s`;
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
    ...metricTexts(step.metrics),
    ...(step.peakMemoryBytes > 0 ? [`peak ${formatBytes(step.peakMemoryBytes)}`] : []),
    `g${step.generation}`,
  ];
  return `${time}  step        ${parts.join('  ')}${step.skipped ? '  SKIPPED (not finite)' : ''}`;
}
