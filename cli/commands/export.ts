import type { Command } from 'commander';
import { Option } from 'commander';
import { CoveyError } from '../../common/errors.ts';
import { exportHf } from '../../models/formats/hugging-face.ts';
import { exportOpenClip } from '../../models/formats/open-clip.ts';
import type { Pretrained } from '../../models/formats/pretrained.ts';
import type { WeightKind } from '../../worker/checkpoint/checkpoint-format.ts';
import { readPretrained } from '../../worker/checkpoint/read-pretrained.ts';
import { EXIT } from '../exit-codes.ts';
import { storeOpener } from '../open-store.ts';
import { collected, weightsOption, wholeNumber } from '../option-values.ts';
import { runCommand } from '../run-command.ts';
import { findCheckpoint, type StoredRunOptions, withStoredRun } from '../stored-run.ts';

interface ExportOptions extends StoredRunOptions {
  readonly format: readonly string[];
  readonly out: string;
  readonly step?: number;
  readonly weights: WeightKind;
}

const WRITERS: Readonly<Record<string, (folder: string, model: Pretrained) => Promise<string[]>>> = {
  hf: exportHf,
  open_clip: exportOpenClip,
};

export function addExportCommand(program: Command): void {
  program
    .command('export')
    .description('write a checkpoint as files that transformers or open_clip load')
    .argument('<run>', 'name of the run')
    .requiredOption('-o, --out <folder>', 'folder to write; with several formats one folder below it for each')
    .addOption(
      new Option('--format <names>', 'hf, open_clip, or both with a comma')
        .argParser(collected)
        .default(undefined, 'open_clip'),
    )
    .option('--step <n>', 'checkpoint of this step (default: the newest that verifies)', wholeNumber(0))
    .addOption(weightsOption())
    .option('--store <url>', 'read this store directly, without a coordinator')
    .action(
      runCommand<ExportOptions>((context, [name = ''], options) =>
        withStoredRun(context, name, options, async (run) => {
          const formats = options.format ?? ['open_clip'];
          checkFormats(formats);
          const manifest = await findCheckpoint(run, options.step, context.signal);
          const source = { ...run, manifest, weights: options.weights };
          const model = await readPretrained(source, async (url) => storeOpener(context)(url), context.signal);
          const files: string[] = [];
          for (const format of formats) {
            const folder = formats.length > 1 ? `${options.out}/${format}` : options.out;
            files.push(...(await WRITERS[format]!(folder, model)));
          }
          context.output.result(
            { run: name, step: manifest.step, weights: options.weights, formats, files },
            files.join('\n'),
          );
          return EXIT.ok;
        }),
      ),
    );
}

function checkFormats(formats: readonly string[]): void {
  const unknown = formats.filter((format) => !Object.hasOwn(WRITERS, format));
  if (unknown.length > 0) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot export: unknown format ${unknown.join(', ')}; there are ${Object.keys(WRITERS).join(', ')}`,
    );
  }
}
