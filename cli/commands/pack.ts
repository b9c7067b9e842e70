import { type Command, Option } from 'commander';
import { CoveyError } from '../../common/errors.ts';
import type { FilterReport } from '../../worker/data/filter/sample-filter.ts';
import type { PackOptions, PackReport } from '../../worker/data/pack/pack.ts';
import { EXIT } from '../exit-codes.ts';
import { formatBytes } from '../format.ts';
import { storeUrl } from '../local-paths.ts';
import { withStore } from '../open-store.ts';
import { collected, wholeNumber } from '../option-values.ts';
import { type NamedSource, readSource, type SourceOptions } from '../pack/read-source.ts';
import { runCommand } from '../run-command.ts';
import { StatusLine } from '../status-line.ts';

interface PackCommandOptions extends SourceOptions {
  readonly name?: string;
  readonly where?: string;
  readonly resize?: number;
  readonly format: 'jpeg' | 'png' | 'webp';
  readonly quality: number;
  readonly shardMib: number;
  readonly shardSamples: number;
}

const HELP = `
Sources:
  a folder             pictures with a .txt of the same name, or in folders named after what they show
  x.csv, .tsv, .jsonl  rows of picture path and caption
  icons:noto,twemoji   icon sets of @iconify-json, captioned by their names
  s3://… or file://…   WebDataset tars (as img2dataset writes them): indexed where they lie, nothing is copied
  …/manifest.json      with --where: a packed dataset; a new manifest over its shards, nothing is copied

Conditions of --where, on the columns of a sample (docs/data.md):
  --where 'width >= 256 and similarity > 0.3 and LANGUAGE == "en"'
  --where 'not (NSFW in ["UNSURE", "NSFW"]) and width / height < 3 and length(caption) > 5'`;

export function addPackCommand(program: Command): void {
  program
    .command('pack')
    .description('make a dataset: tar shards, their index, and a manifest that pins every byte')
    .argument('<source>', 'what to pack, see below')
    .argument('[destination]', 'folder or URL for the dataset; not for tars, which are indexed in place')
    .option('--name <name>', 'name of the dataset (default: from the source)')
    .option('--side <pixels>', 'icons: side of the rendered pictures', wholeNumber(8, 4096), 64)
    .option('--exclude <sets>', 'icons: sets to leave out', collected)
    .addOption(
      new Option(
        '--label <what>',
        'label of every picture; icons: category (default: none); folder: the outermost folder (default with --captions none)',
      ).choices(['category', 'folder']),
    )
    .addOption(
      new Option(
        '--captions <how>',
        'folder: where captions come from; none, also for tables and tars: pictures alone, for simclr, mae, supervised …',
      ).choices(['auto', 'text', 'folder', 'none']),
    )
    .option(
      '--caption-keys <keys>',
      'tars: txt or keys of the json; table: columns: keep all captions, by source',
      collected,
    )
    .option('--meta <keys>', 'tars: keys of the json; table: columns: keep in the index', collected)
    .option('--where <condition>', 'keep only samples for which this holds, see below')
    .option('--root <folder>', 'table: folder the paths are relative to (default: the table’s)')
    .option('--image-column <name>', 'table: column of the picture’s path')
    .option('--caption-column <name>', 'table: column of the caption')
    .option('--resize <pixels>', 'shrink pictures to this shortest side', wholeNumber(8, 8192))
    .addOption(
      new Option('--format <name>', 'with --resize: how to encode').choices(['jpeg', 'png', 'webp']).default('jpeg'),
    )
    .option('--quality <n>', 'with --resize: of jpeg and webp', wholeNumber(1, 100), 95)
    .option('--shard-mib <n>', 'largest shard', wholeNumber(1, 4096), 64)
    .option('--shard-samples <n>', 'most samples in a shard', wholeNumber(1), 10_000)
    .addHelpText('after', HELP)
    .action(
      runCommand<PackCommandOptions>(async (context, [given = '', to], options) => {
        const named = await readSource(given, options);
        const { source } = named;
        const destination = destinationUrl(named, given, to);
        const line = new StatusLine(context.output, () => context.clock.now());
        const { pack } = await import('../../worker/data/pack/pack.ts');
        try {
          return await withStore(context, destination, async (store) => {
            const name = options.name ?? named.name;
            const packOptions = { name, source, destination: store, ...shardOptions(options) };
            const packed = await pack(packOptions, {
              logger: context.logger,
              signal: context.signal,
              onProgress: (now) =>
                line.update(
                  `${now.packed} packed, ${now.skipped} left out, ${now.shards} shards, ${formatBytes(now.bytes)}`,
                ),
            });
            line.close();
            const manifest = `${store.url}/${source.kind === 'manifest' ? packed.manifestKey : 'manifest.json'}`;
            const { manifestSha256, report } = packed;
            context.output.result(
              { manifest, manifestSha256, report, sources: packed.manifest.sources },
              reportText(manifest, report),
            );
            return EXIT.ok;
          });
        } finally {
          line.close();
        }
      }),
    );
}

function shardOptions(options: PackCommandOptions): Partial<PackOptions> {
  const { resize, format, quality, where } = options;
  return {
    ...(where === undefined ? {} : { where }),
    shardBytesMax: options.shardMib * 2 ** 20,
    samplesPerShardMax: options.shardSamples,
    ...(resize === undefined ? {} : { resize: { shortestSide: resize, format, quality } }),
  };
}

function destinationUrl({ inPlace }: NamedSource, given: string, to: string | undefined): string {
  if (inPlace !== undefined) {
    if (to === undefined) return inPlace;
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot pack: what is packed already is indexed where it lies (${given}); leave the destination out: value is ${to}`,
    );
  }
  if (to === undefined)
    throw new CoveyError(
      'INVALID_ARGUMENT',
      'Cannot pack: no destination; give a folder or a URL as the second argument',
    );
  return storeUrl(to);
}

function reportText(manifest: string, report: PackReport): string {
  const lines = [`${report.packed} samples in ${report.shards} shards, ${formatBytes(report.bytes)}`];
  for (const [reason, count] of Object.entries(report.skippedByReason)) lines.push(`left out: ${count} ${reason}`);
  if (report.filter !== undefined) lines.push(...filterLines(report.filter));
  for (const { name, reason } of report.skippedNamed.slice(0, 5)) lines.push(`  ${name}: ${reason}`);
  lines.push(`manifest: ${manifest}`);
  return lines.join('\n');
}

function filterLines({ kept, dropped, clauses }: FilterReport): string[] {
  const counts = clauses.map(
    ({ clause, dropped: n, missing }) =>
      `  ${n} by ${clause}${missing > 0 ? ` (${missing} of them have no value)` : ''}`,
  );
  return [`--where kept ${kept} and left out ${dropped}:`, ...counts];
}
