import type { EvalDatasetConfig } from '../../common/config/eval-config.ts';
import { CoveyError } from '../../common/errors.ts';
import { evalTransform } from '../../models/preprocess/eval-transform.ts';
import type { Tokenizer } from '../../models/tokenizer/tokenizer.ts';
import type { Dataset, LocatedSample } from '../data/dataset.ts';
import { readImageBytes } from '../data/sample-source.ts';
import type { ShardCache } from '../data/shard-cache.ts';
import { samplesOf } from './check-held-out.ts';
import { blockBegin, type EvalGeometry, roundsOf } from './eval-rounds.ts';
import { type EvalBlock, type EvalFacts, NO_CLASS, NO_ROW } from './held-out-evaluator.ts';
import { fillTemplate } from './text-classifier.ts';

export interface HeldOutDataOptions {
  readonly dataset: EvalDatasetConfig;
  readonly geometry: EvalGeometry;
  readonly imageSide: number;
  readonly pixelsMax: number;
}

export interface OpenedDataset {
  readonly dataset: Dataset;
  readonly cache: ShardCache;
}

export interface HeldOutDataModules {
  readonly test: OpenedDataset;
  /** Where `fit` names another dataset. */
  readonly fit: OpenedDataset | undefined;
  /** Where a task compares pictures with texts. */
  readonly tokenizer: Tokenizer | null;
  /** Called once per broken picture: it is left out at every world size. */
  readonly onBroken: (sampleId: string, reason: string) => void;
}

/** Blocks in the making at once. */
const PICTURES_AT_ONCE = 4;

/** Held-out pictures, captions and class texts as blocks of fixed shape, in shared memory; every worker loads those of its lanes alone. */
export class HeldOutData {
  readonly facts: EvalFacts;
  readonly #options: HeldOutDataOptions;
  readonly #modules: HeldOutDataModules;
  readonly #classNames: readonly string[];
  readonly #classIndex: ReadonlyMap<string, number>;
  readonly #known = new Set<string>();

  private constructor(options: HeldOutDataOptions, modules: HeldOutDataModules, classNames: readonly string[]) {
    this.#options = options;
    this.#modules = modules;
    this.#classNames = classNames;
    this.#classIndex = new Map(classNames.map((name, index) => [name, index]));
    const { name, tasks, templates } = options.dataset;
    const fitsElsewhere = modules.fit !== undefined;
    this.facts = { name, tasks, classes: classNames.length, templates: templates.length, fitsElsewhere };
  }

  /** @throws CoveyError CONFIG_INVALID where the data lack what a task needs */
  static async open(options: HeldOutDataOptions, modules: HeldOutDataModules, signal?: AbortSignal) {
    const { dataset } = options;
    const needsClasses = dataset.tasks.some((task) => task === 'zeroshot' || task === 'knn' || task === 'probe');
    const names = needsClasses ? (dataset.classes ?? (await labelsOf(modules, options, signal))) : [];
    return new HeldOutData(options, modules, names);
  }

  rounds(part: 'test' | 'fit' | 'classes'): number {
    const { geometry, dataset } = this.#options;
    const { classes, templates } = this.facts;
    if (part === 'classes') return dataset.tasks.includes('zeroshot') ? roundsOf(classes * templates, geometry) : 0;
    if (part === 'fit') return this.#modules.fit ? roundsOf(this.#samplesOf('fit'), geometry) : 0;
    // A validation loss alone looks at no single picture.
    return dataset.tasks.some((task) => task !== 'loss') ? roundsOf(this.#samplesOf('test'), geometry) : 0;
  }

  /** Pictures of some lanes' blocks, after the evaluation transform. */
  pictures(part: 'test' | 'fit', round: number, lanes: readonly number[], signal: AbortSignal): Promise<EvalBlock[]> {
    return Promise.all(lanes.map((lane) => this.#pictureBlock(part, round, lane, signal)));
  }

  /** Texts of the classes: template after template, each with all classes. */
  classTexts(round: number, lanes: readonly number[]): EvalBlock[] {
    const { templates } = this.#options.dataset;
    const { geometry } = this.#options;
    const { classes } = this.facts;
    return lanes.map((lane) => {
      const block = this.#newBlock(lane, 0);
      const begin = blockBegin(round, lane, geometry);
      for (let row = 0; row < geometry.laneBatch; row++) {
        const template = templates[Math.floor((begin + row) / classes)];
        const text = template === undefined ? '' : fillTemplate(template, this.#classNames[(begin + row) % classes]!);
        this.#writeTokens(block, row, text);
      }
      return block;
    });
  }

  async #pictureBlock(part: 'test' | 'fit', round: number, lane: number, signal: AbortSignal): Promise<EvalBlock> {
    const { geometry, imageSide } = this.#options;
    const bytes = imageSide ** 2 * 3;
    const block = this.#newBlock(lane, geometry.laneBatch * bytes);
    const begin = blockBegin(round, lane, geometry);
    const count = Math.max(0, Math.min(geometry.laneBatch, this.#samplesOf(part) - begin));
    for (let from = 0; from < count; from += PICTURES_AT_ONCE) {
      const rows = Array.from({ length: Math.min(PICTURES_AT_ONCE, count - from) }, (_, i) => from + i);
      await Promise.all(
        rows.map((row) =>
          this.#fill(
            part,
            begin + row,
            { block, row, pixels: block.pixels.subarray(row * bytes, (row + 1) * bytes) },
            signal,
          ),
        ),
      );
    }
    for (let row = 0; row < geometry.laneBatch; row++)
      if (block.labels[row] === NO_ROW) this.#writeTokens(block, row, '');
    return block;
  }

  async #fill(
    part: 'test' | 'fit',
    sampleIndex: number,
    into: { readonly block: EvalBlock; readonly row: number; readonly pixels: Uint8Array },
    signal: AbortSignal,
  ): Promise<void> {
    const { dataset, cache } = part === 'fit' ? this.#modules.fit! : this.#modules.test;
    const located = await dataset.locate(sampleIndex, signal);
    try {
      const { imageSide } = this.#options;
      into.pixels.set(await evalTransform(await readImageBytes(cache, located, signal), imageSide, this.#options));
    } catch (thrown) {
      if (!CoveyError.is(thrown, 'DATA_CORRUPT') || typeof thrown.fields['reason'] !== 'string') throw thrown;
      if (!this.#known.has(located.sampleId)) this.#modules.onBroken(located.sampleId, thrown.fields['reason']);
      this.#known.add(located.sampleId);
      return;
    }
    into.block.labels[into.row] = this.#classIndex.get(classNameOf(located) ?? '') ?? NO_CLASS;
    this.#writeTokens(into.block, into.row, located.record.captions[0] ?? '');
  }

  #samplesOf(part: 'test' | 'fit'): number {
    if (part === 'fit') return this.#modules.fit!.dataset.sampleCount;
    return samplesOf(this.#modules.test.dataset, this.#options.dataset);
  }

  #newBlock(lane: number, pixelBytes: number): EvalBlock {
    const { laneBatch } = this.#options.geometry;
    const { tokenizer } = this.#modules;
    return {
      lane,
      pixels: new Uint8Array(new SharedArrayBuffer(pixelBytes)),
      tokens: new Int32Array(new SharedArrayBuffer(4 * laneBatch * (tokenizer?.contextLength ?? 0))),
      labels: new Int32Array(new SharedArrayBuffer(4 * laneBatch)).fill(NO_ROW),
    };
  }

  #writeTokens({ tokens }: EvalBlock, row: number, text: string): void {
    const { tokenizer } = this.#modules;
    if (tokenizer !== null) tokens.set(tokenizer.encode(text), row * tokenizer.contextLength);
  }
}

/** As `covey zeroshot` has it: the label, or where there is none the first caption. */
function classNameOf({ record }: LocatedSample): string | undefined {
  return record.label === undefined ? record.captions[0] : String(record.label);
}

async function labelsOf(
  { test, fit }: HeldOutDataModules,
  { dataset }: HeldOutDataOptions,
  signal?: AbortSignal,
): Promise<string[]> {
  const found = new Set<string>();
  for (const [part, count] of [
    [test.dataset, samplesOf(test.dataset, dataset)],
    ...(fit ? [[fit.dataset, fit.dataset.sampleCount] as const] : []),
  ] as const) {
    for (let i = 0; i < count; i++) {
      const name = classNameOf(await part.locate(i, signal));
      if (name !== undefined) found.add(name);
    }
  }
  return [...found].sort();
}
