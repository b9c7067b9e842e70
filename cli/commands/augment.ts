import path from 'node:path';
import { type Command, Option } from 'commander';
import { RECIPE_NAMES, type RecipeName } from '../../common/config/augment-recipes.ts';
import { writeWhole } from '../../common/whole-file.ts';
import { EXIT } from '../exit-codes.ts';
import { repeated, wholeNumber } from '../option-values.ts';
import { runCommand } from '../run-command.ts';

interface PreviewCommandOptions {
  readonly input: string;
  readonly recipe: RecipeName;
  readonly views: number;
  readonly pictures: number;
  readonly size: number;
  readonly seed: number;
  readonly epoch: number;
  readonly set?: readonly string[];
  readonly out: string;
}

const HELP = `
Inputs:
  a picture            jpeg, png or webp
  a folder             its pictures, also those in folders within
  a manifest           path or URL of a dataset's manifest.json; the draws are those of training with this seed
  icons:noto,twemoji   icon sets of @iconify-json, as the demo uses them

Examples:
  covey augment preview --input icons:noto --recipe byol --out byol.png
  covey augment preview --input photo.jpg --recipe simclr --set jitter.hue=0.1 --set blur.probability=1
  covey augment preview --input photos --recipe none --set 'multiCrop={views: 6, side: 96, scale: [0.05, 0.14]}'`;

export function addAugmentCommand(program: Command): void {
  program
    .command('augment')
    .description('look at augmentations')
    .command('preview')
    .description('draw a sheet of pictures and their augmented views, labelled with what was done')
    .requiredOption('--input <what>', 'picture, folder, manifest or icons:<sets>, see below')
    .addOption(new Option('--recipe <name>', 'augmentation to show').choices(RECIPE_NAMES).makeOptionMandatory())
    .option('--set <key=value>', 'override a key of the recipe (as under data.augment); may be repeated', repeated)
    .option('--views <n>', 'views per picture (a multi-crop is shown whole)', wholeNumber(1, 64), 8)
    .option('--pictures <n>', 'pictures, evenly spread over the input', wholeNumber(1, 64), 4)
    .option('--size <pixels>', 'side of a view', wholeNumber(16, 1024), 160)
    .option('--seed <n>', 'of the draws', wholeNumber(0, 2 ** 32 - 1), 0)
    .option('--epoch <n>', 'first epoch to show', wholeNumber(0), 0)
    .option('--out <file>', 'the sheet, PNG', 'augment-preview.png')
    .addHelpText('after', HELP)
    .action(
      runCommand<PreviewCommandOptions>(async (context, _args, options) => {
        const { previewConfig } = await import('../augment/preview-config.ts');
        const { previewPictures } = await import('../augment/preview-pictures.ts');
        const { previewSheet } = await import('../augment/preview-sheet.ts');
        const augment = previewConfig(options.recipe, options.set ?? []);
        const pictures = await previewPictures(options.input, options.pictures, context);
        const { png, rows } = await previewSheet(pictures, { ...options, augment });
        const file = path.resolve(options.out);
        await writeWhole(file, png);
        const views = rows.reduce((sum, row) => sum + row.views.length, 0);
        context.output.result(
          { sheet: file, recipe: options.recipe, augment, pictures: rows },
          `${options.out}: ${rows.length} pictures, ${views} views of recipe ${options.recipe}`,
        );
        return EXIT.ok;
      }),
    );
}
