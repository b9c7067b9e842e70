import type { Command } from 'commander';
import { EXIT } from '../exit-codes.ts';
import { formatDuration, formatNumber } from '../format.ts';
import { runCommand } from '../run-command.ts';
import { withRunClient } from '../run-connection.ts';
import { isEnded, runAsJson, secondsLeft, stateName } from '../run-view.ts';

export function addPsCommand(program: Command): void {
  program
    .command('ps')
    .description('list the runs the coordinator knows')
    .option('-a, --all', 'also the ended ones')
    .action(
      runCommand<{ all?: boolean }>(async (context, _args, options) => {
        const runs = await withRunClient(context, (client) => client.listRuns({ signal: context.signal }));
        const shown = runs.filter((run) => options.all === true || !isEnded(run.state));
        const rows = shown.map((run) => [
          run.run,
          stateName(run.state),
          `${run.step}/${run.totalSteps}`,
          formatNumber(run.lastStep?.loss, 4),
          formatNumber(run.samplesPerSecond, 0),
          run.members.length,
          isEnded(run.state) ? '–' : formatDuration(secondsLeft(run)),
        ]);
        const hidden = runs.length - shown.length;
        if (hidden > 0) context.output.message(`${hidden} ended run${hidden === 1 ? '' : 's'} not shown (--all)`);
        const text = context.output.table(['run', 'state', 'step', 'loss', 'samples/s', 'workers', 'left'], rows);
        context.output.result(shown.map(runAsJson), text);
        return EXIT.ok;
      }),
    );
}
