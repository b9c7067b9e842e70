import type { Command } from 'commander';
import { EXIT } from '../exit-codes.ts';
import { endText, followRun } from '../follow-run.ts';
import { exitCodeOfState, runCommand } from '../run-command.ts';
import { withRunClient } from '../run-connection.ts';
import { runAsJson, stateName, statusText } from '../run-view.ts';

export function addStatusCommand(program: Command): void {
  program
    .command('status')
    .description('show one run: state, step, loss, workers, checkpoint')
    .argument('<run>', 'name of the run')
    .option('-w, --watch', 'follow it until it ends; exits 1 if it fails')
    .action(
      runCommand<{ watch?: boolean }>(async (context, [name = ''], options) =>
        withRunClient(context, async (client) => {
          const { output } = context;
          const run = await client.getRun(name, { signal: context.signal });
          if (!options.watch) {
            output.result(
              runAsJson(run),
              statusText(run, (head, rows) => output.table(head, rows)),
            );
            return EXIT.ok;
          }
          const ended = await followRun(client, name, context, { afterStep: run.step, jsonLines: true });
          output.message(endText(ended));
          return exitCodeOfState(stateName(ended.state));
        }),
      ),
    );
}
