import type { Command } from 'commander';
import { EXIT } from '../exit-codes.ts';
import { runCommand } from '../run-command.ts';
import { withRunClient } from '../run-connection.ts';
import { runAsJson, stateName } from '../run-view.ts';

export function addResumeCommand(program: Command): void {
  program
    .command('resume')
    .description('continue a stopped or failed run from its newest checkpoint')
    .argument('<run>', 'name of the run')
    .action(
      runCommand(async (context, [name = '']) =>
        withRunClient(context, async (client) => {
          const run = await client.resumeRun(name, { signal: context.signal });
          context.output.result(
            runAsJson(run),
            `run ${run.run} is ${stateName(run.state)} at step ${run.step}; follow it with \`covey status ${run.run} -w\``,
          );
          return EXIT.ok;
        }),
      ),
    );
}
