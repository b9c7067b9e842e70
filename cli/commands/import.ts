import { readFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { Option } from 'commander';
import { CoveyError } from '../../common/errors.ts';
import { EXPORT_FORMATS, type ExportFormat, exportModel } from '../../models/formats/export-formats.ts';
import { type LoadOptions, loadPretrainedPath } from '../../models/formats/load-pretrained.ts';
import { backboneOf, type Pretrained, shapesOf, visionOf } from '../../models/formats/pretrained.ts';
import { resolveModelConfig } from '../../models/model-config.ts';
import { elementCount } from '../../models/parameter-spec.ts';
import type { CommandContext } from '../context.ts';
import { EXIT } from '../exit-codes.ts';
import { wholeNumber } from '../option-values.ts';
import { packageVersion } from '../package-version.ts';
import { runCommand } from '../run-command.ts';

interface ImportOptions {
  readonly out: string;
  readonly format: ExportFormat;
  readonly imageSize?: number;
  readonly imageTower?: boolean;
  readonly model?: string;
  readonly quickGelu?: boolean;
  readonly tokenizer?: string;
  readonly license?: string;
}

export function addImportCommand(program: Command): void {
  program
    .command('import')
    .description('read CLIP weights of OpenAI, open_clip or transformers, check them, and write them in any format')
    .argument(
      '<place>',
      'a model folder, or a file of weights: safetensors, or a torch archive (read without running it)',
    )
    .requiredOption('-o, --out <folder>', 'folder to write')
    .addOption(new Option('--format <name>', 'format to write').choices([...EXPORT_FORMATS]).default('open_clip'))
    .option(
      '--image-size <n>',
      'side of the pictures; the positions are resized (bicubic, as open_clip)',
      wholeNumber(1),
    )
    .option('--image-tower', 'the image tower alone, up to the feature that transfer starts from')
    .option('--model <preset>', 'the model, for weights without a config beside them, e.g. ViT-B-32-quickgelu')
    .option('--quick-gelu', 'the activation, for weights without a config: x·σ(1.702x), as in the OpenAI models')
    .option('--no-quick-gelu', 'the activation, for weights without a config: exact GELU')
    .option('--tokenizer <file>', 'a tokenizer.json, for a vocabulary of the model’s own')
    .option('--license <spdx>', 'licence of the weights, for the model card')
    .action(
      runCommand<ImportOptions>(async (context, [place = ''], options) => {
        const whole = await loadPretrainedPath(place, await loadOptions(options));
        const model = options.imageTower === true ? backboneOf(whole) : whole;
        const card = {
          name: options.out.split(/[\\/]/).at(-1) || 'model',
          origin: `read with covey ${packageVersion()} from weights that were made elsewhere`,
          training: [],
          data: [],
          metrics: [],
          license: options.license,
        };
        const files = await exportModel(options.out, options.format, model, { card, version: packageVersion() });
        const facts = factsOf(model);
        context.output.result({ ...facts, format: options.format, files }, summary(facts, files, context));
        return EXIT.ok;
      }),
    );
}

async function loadOptions(options: ImportOptions): Promise<LoadOptions> {
  const { imageSize, model, quickGelu, tokenizer } = options;
  return {
    ...(imageSize === undefined ? {} : { imageSize }),
    ...(model === undefined ? {} : { model: resolveModelConfig(model) }),
    ...(quickGelu === undefined ? {} : { quickGelu }),
    ...(tokenizer === undefined ? {} : { tokenizerJson: await readTokenizer(tokenizer) }),
  };
}

async function readTokenizer(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (thrown) {
    throw new CoveyError('NOT_FOUND', `Cannot import: the tokenizer ${file} cannot be read`, { cause: thrown });
  }
}

function factsOf(model: Pretrained) {
  const parameters = shapesOf(model).reduce((sum, { shape }) => sum + elementCount(shape), 0);
  const { imageSize } = visionOf(model);
  if (model.kind === 'backbone') return { kind: model.kind, parameters, imageSize };
  return {
    kind: model.kind,
    parameters,
    imageSize,
    embedDim: model.config.embedDim,
    quickGelu: model.config.quickGelu,
  };
}

function summary(facts: ReturnType<typeof factsOf>, files: readonly string[], { output }: CommandContext): string {
  const rows = Object.entries(facts).map(([name, value]) => [name, String(value)]);
  return `${output.table(['', ''], rows)}\n${files.join('\n')}`;
}
