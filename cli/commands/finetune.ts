import type { Command } from 'commander';
import { EXIT } from '../exit-codes.ts';
import { runCommand } from '../run-command.ts';
import { addBackboneOptions, BACKBONE_ARGUMENT } from '../transfer/backbone-options.ts';
import type { FinetuneOptions } from '../transfer/finetune.ts';
import { addHeadOptions } from '../transfer/head-options.ts';
import { addLabelOptions } from '../transfer/label-options.ts';
import { addComputeOptions, TransferSession } from '../transfer/session.ts';
import { percent } from '../transfer/task-report.ts';
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
  addHeadOptions(command);
  addComputeOptions(addBackboneOptions(addTuneOptions(addLabelOptions(command)))).action(
    runCommand<FinetuneOptions>(async (context, [source = ''], options) => {
      const { finetune } = await import('../transfer/finetune.ts');
      const result = await TransferSession.run(context, options, (session) => finetune(session, source, options));
      context.output.result(
        result,
        [
          `accuracy on the ${result.judgedOn} split ${percent(result.accuracy)} (${result.judged} pictures, ${result.classes} classes)`,
          `trained ${result.trainedParameters} parameters, ${percent(result.trainedShare)} of the backbone; best validation at step ${result.bestStep} of ${result.steps}`,
          ...result.files,
        ].join('\n'),
      );
      return EXIT.ok;
    }),
  );
}
