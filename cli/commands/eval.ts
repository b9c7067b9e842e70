import { readFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import type { Command } from 'commander';
import { CoveyError } from '../../common/errors.ts';
import type { WeightKind } from '../../worker/checkpoint/checkpoint-format.ts';
import { type Dataset, type LocatedSample, openDataset, splitManifestUrl } from '../../worker/data/dataset.ts';
import type { EvalImage } from '../../worker/eval/zeroshot.ts';
import type { CommandContext } from '../context.ts';
import { EXIT } from '../exit-codes.ts';
import { defaultCacheDir } from '../local-paths.ts';
import { withStore } from '../open-store.ts';
import { type EngineChoice, engineOption, repeated, weightsOption, wholeNumber } from '../option-values.ts';
import { runCommand } from '../run-command.ts';
import { StatusLine } from '../status-line.ts';
import { findCheckpoint, type StoredRun, type StoredRunOptions, withStoredRun } from '../stored-run.ts';

interface ZeroShotCommandOptions extends StoredRunOptions {
  readonly data: string;
  readonly classes?: string;
  readonly template?: readonly string[];
  readonly step?: number;
  readonly weights: WeightKind;
  readonly threads?: number;
  readonly engine?: EngineChoice;
  readonly predictions?: boolean;
}

export function addEvalCommand(program: Command): void {
  program
    .command('eval')
    .description('evaluate a checkpoint')
    .command('zeroshot')
    .description('classify the pictures of a dataset by the names of their classes, without training on them')
    .argument('<run>', 'name of the run')
    .requiredOption(
      '--data <manifest>',
      'URL of the manifest of the pictures; a sample’s label is its class, or else its first caption',
    )
    .option('--classes <file>', 'class names, one per line (default: the labels that occur)')
    .option('--template <text>', '{} stands for the class name; several are averaged (default: {})', repeated)
    .option('--step <n>', 'checkpoint of this step (default: the newest that verifies)', wholeNumber(0))
    .addOption(weightsOption())
    .option('--threads <n>', 'compute threads (default: all cores)', wholeNumber(1, 1024))
    .addOption(engineOption('engine (default: auto)'))
    .option('--predictions', 'with --json: also each picture’s five best classes')
    .option('--store <url>', 'read the run from this store directly, without a coordinator')
    .action(
      runCommand<ZeroShotCommandOptions>((context, [name = ''], options) =>
        withStoredRun(context, name, options, async (run) => {
          const result = await zeroShot(run, options, context);
          const { predictions, imageEmbeddings: _images, classEmbeddings: _classes, ...figures } = result;
          const percent = (share: number) => `${(100 * share).toFixed(2)} %`;
          context.output.result(
            options.predictions ? { ...figures, predictions } : figures,
            [
              `run ${name}, step ${figures.step}: ${figures.samples} pictures, ${figures.classes} classes`,
              `top-1 ${percent(figures.top1)}, top-5 ${percent(figures.top5)} (chance ${percent(1 / figures.classes)})`,
              `rank of the right class: mean ${figures.meanRank.toFixed(1)}, median ${figures.medianRank}`,
            ].join('\n'),
          );
          return EXIT.ok;
        }),
      ),
    );
}

async function zeroShot(run: StoredRun, options: ZeroShotCommandOptions, context: CommandContext) {
  // Only this command needs the numerics: the others must start quickly.
  const { loadEngine } = await import('../../engine/index.ts');
  const { ClipModel } = await import('../../models/clip/clip-model.ts');
  const { resolveModelConfig } = await import('../../models/model-config.ts');
  const { readWeights } = await import('../../worker/checkpoint/read-checkpoint.ts');
  const { openTokenizer } = await import('../../worker/data/open-tokenizer.ts');
  const { evaluateZeroShot } = await import('../../worker/eval/zeroshot.ts');
  const { expectBothTowers } = await import('../../worker/objectives/objective-inputs.ts');
  const { storeOpener } = await import('../open-store.ts');

  expectBothTowers(run.config, 'evaluate zero-shot');
  const manifest = await findCheckpoint(run, options.step, context.signal);
  const weights = await readWeights(run.store, manifest, options.weights, context.signal);
  const config = resolveModelConfig(run.config.model);
  const { mean, std, tokenizer: source } = run.config.data;
  const tokenizer = await openTokenizer(
    source,
    config.text.contextLength,
    async (url) => storeOpener(context)(url),
    context.signal,
  );
  const engine = await loadEngine({
    engine: options.engine ?? 'auto',
    threads: options.threads ?? availableParallelism(),
  });
  const model = new ClipModel(config, { seed: 0, precision: 'fp32', init: 'zeros' });
  try {
    // A joint objective has heads besides.
    const known = new Set(model.parameters.map(({ name }) => name));
    model.setWeights(new Map([...weights].filter(([key]) => known.has(key)).map(([key, { values }]) => [key, values])));
    const { storeUrl, key } = splitManifestUrl(options.data);
    return await withStore(context, storeUrl, async (store) => {
      const dataset = await openDataset(store, key, { signal: context.signal });
      const classNames = options.classes ? await readLines(options.classes) : await labelsOf(dataset, context.signal);
      const images = evalImages(dataset, config.vision.imageSize, run.config.data, context);
      const evaluated = await evaluateZeroShot(
        images,
        { classNames, mean, std, ...(options.template ? { templates: options.template } : {}) },
        { engine, model, tokenizer },
        context.signal,
      );
      return { run: run.name, step: manifest.step, weights: options.weights, data: options.data, ...evaluated };
    });
  } finally {
    model.dispose();
    engine.close();
  }
}

/** A sample's class: its label, or where it has none its first caption. */
function labelOf({ record, sampleId }: LocatedSample): string {
  const label = record.label ?? record.captions[0];
  if (label === undefined)
    throw new CoveyError('INVALID_ARGUMENT', `Cannot evaluate: ${sampleId} has neither label nor caption`);
  return String(label);
}

async function labelsOf(dataset: Dataset, signal: AbortSignal): Promise<string[]> {
  const labels = new Set<string>();
  for await (const sample of dataset.samples(signal)) labels.add(labelOf(sample));
  return [...labels].sort();
}

async function readLines(file: string): Promise<string[]> {
  const lines = (await readFile(file, 'utf8')).split('\n').map((line) => line.trim());
  return lines.filter((line) => line !== '');
}

async function* evalImages(
  dataset: Dataset,
  imageSide: number,
  data: { readonly cacheDir?: string | undefined; readonly cacheBytesMax: number; readonly pixelsMax: number },
  context: CommandContext,
): AsyncGenerator<EvalImage> {
  const { evalBatches } = await import('../../worker/data/eval-loader.ts');
  const { ShardCache } = await import('../../worker/data/shard-cache.ts');
  const dir = data.cacheDir ?? defaultCacheDir();
  const cache = new ShardCache({ dir, bytesMax: data.cacheBytesMax }, { store: dataset.store, logger: context.logger });
  const line = new StatusLine(context.output, () => context.clock.now());
  const bytes = imageSide ** 2 * 3;
  let done = 0;
  try {
    for await (const batch of evalBatches(
      { imageSide, batch: 64, pixelsMax: data.pixelsMax },
      { dataset, cache },
      context.signal,
    )) {
      for (const { sampleId, reason } of batch.broken) context.output.warn(`${sampleId} left out: ${reason}`);
      for (const [index, sample] of batch.samples.entries()) {
        yield {
          sampleId: sample.sampleId,
          label: labelOf(sample),
          pixels: batch.pixels.subarray(index * bytes, (index + 1) * bytes),
        };
      }
      done += batch.samples.length;
      line.update(`${done} of ${dataset.sampleCount} pictures`);
    }
  } finally {
    line.close();
    await cache.close();
  }
}
