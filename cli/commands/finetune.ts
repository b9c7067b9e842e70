import type { Command } from 'commander';
import { runCommand } from '../run-command.ts';
import { addBackboneOptions, BACKBONE_ARGUMENT } from '../transfer/backbone-options.ts';
import type { FinetuneOptions } from '../transfer/finetune.ts';
import { runFinetune } from '../transfer/finetune-command.ts';
import { addHeadOptions } from '../transfer/head-options.ts';
import { addLabelOptions } from '../transfer/label-options.ts';
import { addComputeOptions } from '../transfer/session.ts';
import { addTuneOptions } from '../transfer/tune-options.ts';

export function addFinetuneCommand(program: Command): void {
  const command = program
    .command('finetune')
    .description(
      'train a backbone, or an adapter in it, on labelled pictures; run again to go on after an interruption',
    )
    .argument('<backbone>', BACKBONE_ARGUMENT)
    .requiredOption('-o, --out <folder>', 'progress, weights and report')
    .option('--wise', 'also accuracy between the weights before and after (WiSE-FT); needs --head probe or zeroshot');
  addComputeOptions(addBackboneOptions(addTuneOptions(addLabelOptions(addHeadOptions(command))))).action(
    runCommand<FinetuneOptions>((context, [source = ''], options) => runFinetune(context, source, options)),
  );
}
