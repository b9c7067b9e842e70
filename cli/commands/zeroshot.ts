import type { Command } from 'commander';
import { runCommand } from '../run-command.ts';
import { BACKBONE_ARGUMENT } from '../transfer/backbone-options.ts';
import { addZeroShotOptions, type ZeroShotOptions, zeroShotCommand } from '../transfer/zero-shot.ts';

export function addZeroShotCommand(program: Command): void {
  const command = program
    .command('zeroshot')
    .description('classify pictures by the names of their classes, without training on them; retrieval by captions')
    .argument('<backbone>', BACKBONE_ARGUMENT);
  addZeroShotOptions(command).action(
    runCommand<ZeroShotOptions>((context, [source = ''], options) => zeroShotCommand(context, source, options)),
  );
}
