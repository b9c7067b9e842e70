import { stat } from 'node:fs/promises';
import path from 'node:path';
import { type Command, Option } from 'commander';
import { CoveyError } from '../../common/errors.ts';
import type { PackOptions, PackReport, PackSource } from '../../worker/data/pack/pack.ts';
import { EXIT } from '../exit-codes.ts';
import { formatBytes } from '../format.ts';
import { storeUrl } from '../local-paths.ts';
import { withStore } from '../open-store.ts';
import { collected, wholeNumber } from '../option-values.ts';
import { runCommand } from '../run-command.ts';
import { StatusLine } from '../status-line.ts';

interface PackCommandOptions {
  readonly name?: string;
  readonly side: number;
  readonly exclude?: readonly string[];
  readonly label?: 'category';
  readonly captions?: 'auto' | 'text' | 'folder';
  readonly root?: string;
  readonly imageColumn?: string;
  readonly captionColumn?: string;
  readonly resize?: number;
  readonly format: 'jpeg' | 'png' | 'webp';
  readonly quality: number;
  readonly shardMib: number;
  readonly shardSamples: number;
}

const TABLES = ['.csv', '.tsv', '.jsonl'];
const HELP = `
Sources:
  a folder             pictures with a .txt of the same name, or in folders named after what they show
  x.csv, .tsv, .jsonl  rows of picture path and caption
  icons:noto,twemoji   icon sets of @iconify-json, captioned by their names
  s3://… or file://…   WebDataset tars (as img2dataset writes them): indexed where they lie, nothing is copied`;

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
      new Option('--label <what>', 'icons: label of every picture (default: none; the category is in `meta`)').choices([
        'category',
      ]),
    )
    .addOption(new Option('--captions <how>', 'folder: where captions come from').choices(['auto', 'text', 'folder']))
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
        const { source, name } = await readSource(given, options);
        const destination = destinationUrl(source, given, to);
        const line = new StatusLine(context.output, () => context.clock.now());
        const { pack } = await import('../../worker/data/pack/pack.ts');
        try {
          return await withStore(context, destination, async (store) => {
            const packOptions = { name: options.name ?? name, source, destination: store, ...shardOptions(options) };
            const packed = await pack(packOptions, {
              logger: context.logger,
              signal: context.signal,
              onProgress: (now) =>
                line.update(
                  `${now.packed} packed, ${now.skipped} left out, ${now.shards} shards, ${formatBytes(now.bytes)}`,
                ),
            });
            line.close();
            const manifest = `${store.url}/manifest.json`;
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
  const { resize, format, quality } = options;
  return {
    shardBytesMax: options.shardMib * 2 ** 20,
    samplesPerShardMax: options.shardSamples,
    ...(resize === undefined ? {} : { resize: { shortestSide: resize, format, quality } }),
  };
}

/** What kind of source the argument names, and the dataset's name where none is given. */
async function readSource(given: string, options: PackCommandOptions): Promise<{ source: PackSource; name: string }> {
  if (given.startsWith('icons:')) {
    const sets = given.slice('icons:'.length).split(',').filter(Boolean);
    const { side, exclude, label } = options;
    const chosen = { ...(exclude ? { exclude } : {}), ...(label ? { labels: label } : {}) };
    return { source: { kind: 'icons', sets, side, ...chosen }, name: sets.join('-') };
  }
  if (given.includes('://'))
    return { source: { kind: 'tars' }, name: given.split('/').findLast((part) => part !== '') ?? 'dataset' };
  const name = path.basename(given, path.extname(given));
  if (TABLES.includes(path.extname(given).toLowerCase())) {
    const { root, imageColumn, captionColumn } = options;
    const columns = { ...(imageColumn ? { imageColumn } : {}), ...(captionColumn ? { captionColumn } : {}) };
    return { source: { kind: 'table', path: given, ...(root ? { root } : {}), ...columns }, name };
  }
  const isFolder = (await stat(given).catch(() => undefined))?.isDirectory() ?? false;
  if (!isFolder) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot pack ${given}: it is no folder, no table (${TABLES.join(', ')}), not icons:… and no URL; see \`covey pack --help\``,
    );
  }
  return {
    source: { kind: 'folder', path: given, ...(options.captions ? { captions: options.captions } : {}) },
    name: path.basename(path.resolve(given)),
  };
}

function destinationUrl(source: PackSource, given: string, to: string | undefined): string {
  if (source.kind === 'tars') {
    if (to === undefined) return given;
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot pack: tars are indexed where they lie (${given}); leave the destination out: value is ${to}`,
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
  for (const { name, reason } of report.skippedNamed.slice(0, 5)) lines.push(`  ${name}: ${reason}`);
  lines.push(`manifest: ${manifest}`);
  return lines.join('\n');
}
