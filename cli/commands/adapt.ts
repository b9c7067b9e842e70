import type { Command } from 'commander';
import { runCommand } from '../run-command.ts';
import { addBackboneOptions, BACKBONE_ARGUMENT } from '../transfer/backbone-options.ts';
import type { FinetuneOptions } from '../transfer/finetune.ts';
import { runFinetune } from '../transfer/finetune-command.ts';
import { addHeadStart } from '../transfer/head-options.ts';
import { addLabelOptions } from '../transfer/label-options.ts';
import { addComputeOptions } from '../transfer/session.ts';
import { addAdaptOptions } from '../transfer/tune-options.ts';

/** `covey finetune --adapter …` for those who want a task beside a backbone and nothing else. */
export function addAdaptCommand(program: Command): void {
  const command = program
    .command('adapt')
    .description(
      'train a small adapter for a task on labelled pictures, beside a backbone that stays as it is; run again to go on',
    )
    .argument('<backbone>', BACKBONE_ARGUMENT)
    .requiredOption('-o, --out <folder>', 'progress, adapter.safetensors and report');
  addComputeOptions(addBackboneOptions(addAdaptOptions(addLabelOptions(addHeadStart(command))))).action(
    runCommand<FinetuneOptions>((context, [source = ''], options) => runFinetune(context, source, options)),
  );
}
