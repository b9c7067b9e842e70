import type { Command } from 'commander';
import { endText, followRun } from '../follow-run.ts';
import { exitCodeOfState, runCommand } from '../run-command.ts';
import { withRunClient } from '../run-connection.ts';
import { runAsJson, stateName } from '../run-view.ts';

export function addStopCommand(program: Command): void {
  program
    .command('stop')
    .description('checkpoint a run at the step it has reached and release its workers')
    .argument('<run>', 'name of the run')
    .option('--no-wait', 'return at once instead of waiting for the checkpoint')
    .action(
      runCommand<{ wait: boolean }>(async (context, [name = ''], options) =>
        withRunClient(context, async (client) => {
          let run = await client.stopRun(name, { signal: context.signal });
          if (options.wait) run = await followRun(client, name, context, { afterStep: run.step });
          context.output.result(
            runAsJson(run),
            options.wait ? endText(run) : `run ${run.run} is ${stateName(run.state)}`,
          );
          return exitCodeOfState(stateName(run.state));
        }),
      ),
    );
}
