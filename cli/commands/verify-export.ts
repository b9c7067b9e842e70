import type { Command } from 'commander';
import { InvalidArgumentError } from 'commander';
import { CoveyError } from '../../common/errors.ts';
import type { Pretrained } from '../../models/formats/pretrained.ts';
import type { WeightKind } from '../../worker/checkpoint/checkpoint-format.ts';
import type { CommandContext } from '../context.ts';
import { EXIT } from '../exit-codes.ts';
import { weightsOption, wholeNumber } from '../option-values.ts';
import { runCommand } from '../run-command.ts';
import { StatusLine } from '../status-line.ts';
import { findCheckpoint, type StoredRunOptions, withStoredRun } from '../stored-run.ts';
import { type Comparison, passes } from '../verify/comparison.ts';
import { type FoundExport, findExports } from '../verify/find-exports.ts';

interface VerifyOptions extends StoredRunOptions {
  readonly run?: string;
  readonly reference?: string;
  readonly step?: number;
  readonly weights: WeightKind;
  readonly data?: string;
  readonly samples: number;
  readonly tolerance: number;
  readonly imageTower?: boolean;
}

const SAMPLES_DEFAULT = 32;
const TOLERANCE_DEFAULT = 1e-4;

export function addVerifyExportCommand(program: Command): void {
  program
    .command('verify-export')
    .description(
      'run what `covey export` wrote in onnxruntime and tfjs, and compare with covey on pictures and captions',
    )
    .argument('<folder>', 'an export, or the folder of several')
    .option('--run <run>', 'the run whose checkpoint it must equal (default: the weights that lie in the folder)')
    .option('--reference <place>', 'a folder or file of weights that it must equal, instead of a run')
    .option('--step <n>', 'with --run: checkpoint of this step (default: the newest that verifies)', wholeNumber(0))
    .addOption(weightsOption())
    .option('--image-tower', 'the export is the image tower alone of the run or the reference')
    .option(
      '--data <manifest>',
      'manifest (URL or path) of pictures and captions (default: drawings of @iconify-json/noto)',
    )
    .option('--samples <n>', 'pictures and captions to try', wholeNumber(1, 4096), SAMPLES_DEFAULT)
    .option('--tolerance <x>', 'largest absolute difference that passes', positiveNumber, TOLERANCE_DEFAULT)
    .option('--store <url>', 'with --run: read this store directly, without a coordinator')
    .action(
      runCommand<VerifyOptions>(async (context, [folder = ''], options) => {
        const exports = await findExports(folder);
        const { model: whole, origin } = await referenceModel(exports, options, context);
        const { backboneOf } = await import('../../models/formats/pretrained.ts');
        const model = options.imageTower === true ? backboneOf(whole) : whole;
        const { rows, source } = await compareAll(exports, model, options, context);
        const ok = rows.every(passes);
        const result = {
          ok,
          reference: origin,
          samples: source,
          tolerance: options.tolerance,
          comparisons: rows,
        };
        context.output.result(result, describe(result, context));
        return ok ? EXIT.ok : EXIT.failed;
      }),
    );
}

function positiveNumber(text: string): number {
  const value = Number(text);
  if (value > 0 && Number.isFinite(value)) return value;
  throw new InvalidArgumentError('must be a positive number.');
}

/** What covey itself computes with: the run's checkpoint, the named weights, or those that were exported beside the graphs. */
async function referenceModel(
  exports: readonly FoundExport[],
  options: VerifyOptions,
  context: CommandContext,
): Promise<{ model: Pretrained; origin: string }> {
  const { loadPretrainedPath } = await import('../../models/formats/load-pretrained.ts');
  const { run: name } = options;
  if (name !== undefined) {
    const { readPretrained } = await import('../../worker/checkpoint/read-pretrained.ts');
    const { storeOpener } = await import('../open-store.ts');
    return withStoredRun(context, name, options, async (run) => {
      const manifest = await findCheckpoint(run, options.step, context.signal);
      const source = { ...run, manifest, weights: options.weights };
      const model = await readPretrained(source, async (url) => storeOpener(context)(url), context.signal);
      return { model, origin: `run ${name}, step ${manifest.step}` };
    });
  }
  const own = exports.find(({ format }) => format !== 'onnx' && format !== 'tfjs');
  const place = options.reference ?? own?.folder;
  if (place !== undefined) return { model: await loadPretrainedPath(place), origin: place };
  throw new CoveyError(
    'INVALID_ARGUMENT',
    'Cannot verify: there are no weights beside the graphs to compare with; name the run with --run, or a folder of weights with --reference',
  );
}

async function compareAll(
  exports: readonly FoundExport[],
  model: Pretrained,
  options: VerifyOptions,
  context: CommandContext,
): Promise<{ rows: Comparison[]; source: string }> {
  // Only this command needs them: the others must start quickly.
  const { loadEngine } = await import('../../engine/index.ts');
  const { visionOf } = await import('../../models/formats/pretrained.ts');
  const { referenceEmbeddings } = await import('../verify/reference-embeddings.ts');
  const imageSide = visionOf(model).imageSize;
  const line = new StatusLine(context.output, () => context.clock.now());
  const engine = await loadEngine({ engine: 'auto', threads: 1 });
  try {
    line.update('preparing pictures');
    const samples = await samplesFor(options, imageSide, context);
    const reference = referenceEmbeddings(model, samples);
    const rows: Comparison[] = [];
    const { compareExport } = await import('../verify/compare-export.ts');
    for (const found of exports) {
      line.update(`${found.format}: ${found.folder}`);
      rows.push(...(await compareExport(found, { model, reference, samples, tolerance: options.tolerance })));
    }
    return { rows, source: samples.source };
  } finally {
    line.close();
    engine.close();
  }
}

async function samplesFor({ data, samples: count }: VerifyOptions, imageSide: number, context: CommandContext) {
  if (data !== undefined) {
    const { datasetVerifySamples } = await import('../verify/dataset-samples.ts');
    return datasetVerifySamples(data, { count, imageSide }, context);
  }
  const { iconVerifySamples } = await import('../verify/verify-samples.ts');
  return iconVerifySamples(count, imageSide);
}

interface VerifyResult {
  readonly ok: boolean;
  readonly reference: string;
  readonly samples: string;
  readonly comparisons: readonly Comparison[];
}

function describe({ ok, reference, samples, comparisons }: VerifyResult, { output }: CommandContext): string {
  const rows = comparisons.map((one) => [
    one.format,
    one.file,
    one.output,
    one.maxAbsDifference === 0 ? '0' : one.maxAbsDifference.toExponential(2),
    passes(one) ? 'ok' : `more than ${one.tolerance}`,
  ]);
  return [
    `against ${reference}, on ${samples}`,
    output.table(['format', 'file', 'output', 'largest difference', ''], rows),
    ok ? 'the export equals covey' : 'the export differs from covey',
  ].join('\n');
}
