import type { Command } from 'commander';
import { Option } from 'commander';
import { CoveyError } from '../../common/errors.ts';
import { EXPORT_FORMATS, type ExportFormat, exportModel, fittingFormats } from '../../models/formats/export-formats.ts';
import { backboneOf } from '../../models/formats/pretrained.ts';
import type { WeightKind } from '../../worker/checkpoint/checkpoint-format.ts';
import { readPretrained } from '../../worker/checkpoint/read-pretrained.ts';
import { EXIT } from '../exit-codes.ts';
import { type CardOptions, runCardFacts } from '../export/card-facts.ts';
import { storeOpener } from '../open-store.ts';
import { collected, repeated, weightsOption, wholeNumber } from '../option-values.ts';
import { packageVersion } from '../package-version.ts';
import { runCommand } from '../run-command.ts';
import { findCheckpoint, type StoredRunOptions, withStoredRun } from '../stored-run.ts';

interface ExportOptions extends StoredRunOptions, CardOptions {
  readonly format?: readonly string[];
  readonly out: string;
  readonly step?: number;
  readonly weights: WeightKind;
  readonly imageTower?: boolean;
}

export function addExportCommand(program: Command): void {
  program
    .command('export')
    .description('write a checkpoint as files that open_clip, transformers, ONNX runtimes or tfjs load')
    .argument('<run>', 'name of the run')
    .requiredOption('-o, --out <folder>', 'folder to write; with several formats one folder below it for each')
    .addOption(
      new Option(
        '--format <names>',
        `${EXPORT_FORMATS.join(', ')}: several with commas; or all that fit the model: all`,
      )
        .argParser(collected)
        .default(undefined, 'open_clip'),
    )
    .option('--step <n>', 'checkpoint of this step (default: the newest that verifies)', wholeNumber(0))
    .addOption(weightsOption())
    .option('--image-tower', 'the image tower alone, up to the feature that transfer starts from')
    .option(
      '--metrics <file>',
      'results for the model card, as `covey eval … --json` prints them; may be repeated',
      repeated,
    )
    .option('--license <spdx>', 'licence of the weights, for the model card')
    .option('--store <url>', 'read this store directly, without a coordinator')
    .action(
      runCommand<ExportOptions>((context, [name = ''], options) =>
        withStoredRun(context, name, options, async (run) => {
          const asked = options.format ?? ['open_clip'];
          checkFormats(asked);
          const manifest = await findCheckpoint(run, options.step, context.signal);
          const source = { ...run, manifest, weights: options.weights };
          const whole = await readPretrained(source, async (url) => storeOpener(context)(url), context.signal);
          const model = options.imageTower === true ? backboneOf(whole) : whole;
          const card = await runCardFacts(run, manifest, options.weights, options, context);
          const fitting = fittingFormats(model);
          const formats = asked.includes('all') ? fitting : (asked as ExportFormat[]);
          const files: string[] = [];
          for (const format of formats) {
            const folder = formats.length > 1 ? `${options.out}/${format}` : options.out;
            files.push(...(await exportModel(folder, format, model, { card, version: packageVersion() })));
          }
          const { kind } = model;
          context.output.result(
            { run: name, step: manifest.step, weights: options.weights, kind, formats, fitting, files },
            files.join('\n'),
          );
          return EXIT.ok;
        }),
      ),
    );
}

function checkFormats(formats: readonly string[]): void {
  const known: readonly string[] = [...EXPORT_FORMATS, 'all'];
  const unknown = formats.filter((format) => !known.includes(format));
  if (unknown.length > 0) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot export: unknown format ${unknown.join(', ')}; there are ${known.join(', ')}`,
    );
  }
}
