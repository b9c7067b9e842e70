import type { Command } from 'commander';
import { runCommand } from '../run-command.ts';
import { BACKBONE_ARGUMENT } from '../transfer/backbone-options.ts';
import { addZeroShotOptions, type ZeroShotOptions, zeroShotCommand } from '../transfer/zero-shot.ts';

export function addEvalCommand(program: Command): void {
  const command = program
    .command('eval')
    .description('evaluate a checkpoint')
    .command('zeroshot')
    .description('the same as `covey zeroshot`')
    .argument('<backbone>', BACKBONE_ARGUMENT);
  addZeroShotOptions(command).action(
    runCommand<ZeroShotOptions>((context, [source = ''], options) => zeroShotCommand(context, source, options)),
  );
}
