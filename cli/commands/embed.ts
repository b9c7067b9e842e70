import path from 'node:path';
import { type Command, Option } from 'commander';
import { CoveyError } from '../../common/errors.ts';
import type { EmbeddingFormat } from '../../transfer/features/embedding-folder.ts';
import type { CommandContext } from '../context.ts';
import { EXIT } from '../exit-codes.ts';
import { collected, wholeNumber } from '../option-values.ts';
import { runCommand } from '../run-command.ts';
import {
  addBackboneOptions,
  BACKBONE_ARGUMENT,
  type BackboneOptions,
  openBackbone,
} from '../transfer/backbone-options.ts';
import {
  addComputeOptions,
  type ComputeOptions,
  PIXELS_MAX,
  partOption,
  TransferSession,
} from '../transfer/session.ts';

interface EmbedCommandOptions extends BackboneOptions, ComputeOptions {
  readonly data: string;
  readonly out: string;
  readonly format: readonly string[];
  readonly normalise?: boolean;
  readonly part?: { readonly index: number; readonly of: number };
  readonly page?: number;
}

export function addEmbedCommand(program: Command): void {
  const command = program
    .command('embed')
    .description('run a backbone over a dataset and keep its features; run again to go on after an interruption')
    .argument('<backbone>', BACKBONE_ARGUMENT)
    .requiredOption('--data <manifest>', 'URL of the manifest of the pictures')
    .requiredOption('-o, --out <folder>', 'folder of the features: a set of files per shard of the dataset')
    .addOption(
      new Option('--format <names>', 'npy, or with a comma also parquet')
        .argParser(collected)
        .default(undefined, 'npy'),
    )
    .option('--normalise', 'features of unit length')
    .option('--part <i/n>', 'this process’s part of the shards, 1/4 to 4/4: run the others elsewhere', partOption)
    .option('--page <n>', 'also neighbours.html: n pictures, each with those nearest to it', wholeNumber(1, 1000));
  addComputeOptions(addBackboneOptions(command)).action(
    runCommand<EmbedCommandOptions>(async (context, [source = ''], options) => {
      const result = await TransferSession.run(context, options, (session) => embed(session, source, options, context));
      const { done, skipped, dimensions, files } = result;
      context.output.result(
        result,
        `${done} pictures, ${dimensions} features each, ${skipped} of them already there\n${files.join('\n')}`,
      );
      return EXIT.ok;
    }),
  );
}

async function embed(session: TransferSession, source: string, options: EmbedCommandOptions, context: CommandContext) {
  const { TransferNetwork } = await import('../../transfer/network.ts');
  const { embedDataset } = await import('../../transfer/features/embed-dataset.ts');
  const { EmbeddingFolder } = await import('../../transfer/features/embedding-folder.ts');
  const { backbone } = await openBackbone(context, source, options);
  const { dataset, cache } = await session.openDataset(options.data);
  const network = session.own(new TransferNetwork(backbone, { seed: 0, precision: 'fp32' }), (one) => one.dispose());
  const folder = await EmbeddingFolder.prepare(options.out, {
    version: 1,
    backbone: { digest: backbone.digest, origin: backbone.origin },
    dataset: { name: dataset.manifest.name, sha256: dataset.sha256, manifest: options.data },
    dimensions: network.featureWidth,
    formats: formatsOf(options.format ?? []),
    normalised: options.normalise ?? false,
  });
  const report = session.progress('pictures');
  const { engine } = session;
  const { signal, output } = context;
  const { part } = options;
  const progress = await embedDataset(
    { pixelsMax: PIXELS_MAX, ...(part ? { part } : {}) },
    {
      engine,
      network,
      dataset,
      cache,
      folder,
      signal,
      onProgress: ({ done, total, skipped }) => report(done - skipped, total - skipped),
      onBroken: (sampleId, reason) => output.warn(`${sampleId} left out: ${reason}`),
    },
  );
  const files = [options.out];
  if (options.page !== undefined) {
    const { writeNeighbourPage } = await import('../transfer/neighbour-page.ts');
    const file = path.join(options.out, 'neighbours.html');
    await writeNeighbourPage(
      { file, pages: options.page, title: `Neighbours: ${backbone.origin}`, createdAt: session.now() },
      { folder, dataset, cache, signal },
    );
    files.push(file);
  }
  return { ...progress, dimensions: network.featureWidth, backbone: backbone.origin, files };
}

function formatsOf(given: readonly string[]): EmbeddingFormat[] {
  const unknown = given.filter((one) => one !== 'npy' && one !== 'parquet');
  if (unknown.length > 0) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot write features as ${unknown.join(', ')}: there are npy and parquet`,
    );
  }
  // npy is what covey itself reads.
  return given.includes('parquet') ? ['npy', 'parquet'] : ['npy'];
}
