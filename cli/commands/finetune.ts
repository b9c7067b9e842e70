import { type Command, Option } from 'commander';
import { EXIT } from '../exit-codes.ts';
import { repeated } from '../option-values.ts';
import { runCommand } from '../run-command.ts';
import { addBackboneOptions, BACKBONE_ARGUMENT } from '../transfer/backbone-options.ts';
import type { FinetuneOptions } from '../transfer/finetune.ts';
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
    .option('--from-scratch', 'random weights instead of the backbone’s, to compare with')
    .addOption(
      new Option('--head <init>', 'the new head starts random, as a linear probe, or as the text tower’s class weights')
        .choices(['random', 'probe', 'zeroshot'])
        .default('random'),
    )
    .option('--template <text>', 'zeroshot: {} stands for the class name; several are averaged (default: {})', repeated)
    .option('--wise', 'also accuracy between the weights before and after (WiSE-FT); needs --head probe or zeroshot');
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
