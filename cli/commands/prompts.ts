import type { Command } from 'commander';
import { runCommand } from '../run-command.ts';
import { BACKBONE_ARGUMENT } from '../transfer/backbone-options.ts';
import { addPromptsOptions, type PromptsOptions, promptsCommand } from '../transfer/prompts.ts';

export function addPromptsCommand(program: Command): void {
  const command = program
    .command('prompts')
    .description('compare templates for zero-shot: accuracy of each, best ensemble, how much hangs on the choice')
    .argument('<backbone>', BACKBONE_ARGUMENT);
  addPromptsOptions(command).action(
    runCommand<PromptsOptions>((context, [source = ''], options) => promptsCommand(context, source, options)),
  );
}
