import { type Command, InvalidArgumentError, Option } from 'commander';
import { EXIT } from '../exit-codes.ts';
import { collected, wholeNumber } from '../option-values.ts';
import { runCommand } from '../run-command.ts';
import { addBackboneOptions, BACKBONE_ARGUMENT } from '../transfer/backbone-options.ts';
import type { CompareOptions } from '../transfer/compare.ts';
import { COMPARED, type ComparedMethod } from '../transfer/compared-methods.ts';
import { addLabelledData } from '../transfer/label-options.ts';
import { addComputeOptions, TransferSession } from '../transfer/session.ts';
import { addTuneOptions } from '../transfer/tune-options.ts';

export function addCompareCommand(program: Command): void {
  const command = program
    .command('compare')
    .description(
      'what a backbone is worth: linear probe, fine-tuning and training from scratch with several shares of the labels; run again to go on',
    )
    .argument('<backbone>', BACKBONE_ARGUMENT)
    .requiredOption('-o, --out <folder>', 'table, report, and what is needed to go on')
    .addOption(
      new Option('--fractions <shares>', 'shares of each class that is not kept for validation, at least one picture')
        .argParser(shares)
        .default([0.01, 0.1, 1], '0.01,0.1,1'),
    )
    .addOption(
      new Option('--methods <names>', 'which of them, with commas')
        .argParser(methods)
        .default(COMPARED, COMPARED.join()),
    )
    .option('--seeds <n>', 'repeat with so many seeds, from --seed on', wholeNumber(1, 100), 1);
  addComputeOptions(addBackboneOptions(addTuneOptions(addLabelledData(command)))).action(
    runCommand<CompareOptions>(async (context, [source = ''], options) => {
      const { compareBackbone } = await import('../transfer/compare.ts');
      const { comparisonTable } = await import('../transfer/compare-report.ts');
      const result = await TransferSession.run(context, options, (session) =>
        compareBackbone(session, source, options),
      );
      const { head, rows } = comparisonTable(result);
      context.output.result(
        result,
        [
          `accuracy on ${result.judged} pictures of the ${result.judgedOn} split, ${result.classes} classes`,
          context.output.table(head, rows),
          ...result.files,
        ].join('\n'),
      );
      return EXIT.ok;
    }),
  );
}

function shares(text: string): number[] {
  const found = collected(text).map(Number);
  if (found.length > 0 && found.every((share) => share > 0 && share <= 1)) {
    return [...new Set(found)].sort((a, b) => a - b);
  }
  throw new InvalidArgumentError('write shares from 0 to 1 with commas: 0.01,0.1,1.');
}

function methods(text: string): ComparedMethod[] {
  const names = collected(text);
  const known: readonly string[] = COMPARED;
  if (names.length > 0 && names.every((name) => known.includes(name))) {
    return COMPARED.filter((name) => names.includes(name));
  }
  throw new InvalidArgumentError(`there are ${COMPARED.join(', ')}.`);
}
