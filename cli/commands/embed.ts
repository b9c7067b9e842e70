import { type Command, Option } from 'commander';
import { EXIT } from '../exit-codes.ts';
import { collected, wholeNumber } from '../option-values.ts';
import { runCommand } from '../run-command.ts';
import { addBackboneOptions, BACKBONE_ARGUMENT } from '../transfer/backbone-options.ts';
import type { EmbedCommandOptions } from '../transfer/embed.ts';
import { addComputeOptions, partOption, TransferSession } from '../transfer/session.ts';

export function addEmbedCommand(program: Command): void {
  const command = program
    .command('embed')
    .description('run a backbone over a dataset and keep its features; run again to go on after an interruption')
    .argument('<backbone>', BACKBONE_ARGUMENT)
    .requiredOption('--data <manifest>', 'manifest (URL or path) of the pictures')
    .requiredOption('-o, --out <folder>', 'folder of the features: a set of files per shard of the dataset')
    .addOption(
      new Option('--format <names>', 'npy, or with a comma also parquet')
        .argParser(collected)
        .default(undefined, 'npy'),
    )
    .option('--normalise', 'features of unit length')
    .option(
      '--workers <n>',
      'processes that share the shards, each with --threads (then 1 by default)',
      wholeNumber(1, 256),
    )
    .option('--part <i/n>', 'this machine’s part of the shards, 1/4 to 4/4: run the others elsewhere', partOption)
    .option('--page <n>', 'also neighbours.html: n pictures, each with those nearest to it', wholeNumber(1, 1000));
  addComputeOptions(addBackboneOptions(command)).action(
    runCommand<EmbedCommandOptions>(async (context, [source = ''], options) => {
      const { embed } = await import('../transfer/embed.ts');
      const result = await TransferSession.run(context, options, (session) => embed(session, source, options));
      const { done, skipped, dimensions, files } = result;
      context.output.result(
        result,
        `${done} pictures, ${dimensions} features each, ${skipped} of them already there\n${files.join('\n')}`,
      );
      return EXIT.ok;
    }),
  );
}
