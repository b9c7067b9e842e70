import { availableParallelism } from 'node:os';
import { type Command, InvalidArgumentError } from 'commander';
import { LRUCache } from 'lru-cache';
import type { AugmentConfig } from '../../common/config/augment-config.ts';
import { PIXELS_MAX_DEFAULT } from '../../common/config/pixels-max.ts';
import { CoveyError } from '../../common/errors.ts';
import type { Engine } from '../../engine/index.ts';
import type { LabelledSet } from '../../transfer/data/labelled-set.ts';
import type { PictureSample, PictureSource } from '../../transfer/data/picture-source.ts';
import { Closers } from '../../worker/closers.ts';
import type { Dataset } from '../../worker/data/dataset.ts';
import type { ShardCache } from '../../worker/data/shard-cache.ts';
import type { CommandContext } from '../context.ts';
import { formatDuration } from '../format.ts';
import { defaultCacheDir, storeUrl } from '../local-paths.ts';
import { storeOpener } from '../open-store.ts';
import { type EngineChoice, engineOption, wholeNumber } from '../option-values.ts';
import { StatusLine } from '../status-line.ts';

/** Options of every command that computes. */
export interface ComputeOptions {
  readonly threads?: number;
  readonly engine?: EngineChoice;
  readonly cacheDir?: string;
}

export function addComputeOptions(command: Command): Command {
  return command
    .option('--threads <n>', 'compute threads (default: all cores)', wholeNumber(1, 1024))
    .addOption(engineOption('engine (default: auto)'))
    .option('--cache-dir <folder>', 'where shards of a remote store are kept');
}

const LABELLED_MAX = 2;
const CACHE_BYTES_MAX = 20 * 2 ** 30;

export interface OpenedDataset {
  readonly dataset: Dataset;
  readonly cache: ShardCache;
}

export interface LabelsWanted {
  readonly labelKey?: string | undefined;
  readonly classes?: readonly string[] | undefined;
}

export interface PicturesWanted {
  readonly imageSide: number;
  readonly augment: AugmentConfig;
  readonly seed: number;
}

interface LabelledPictures {
  readonly set: LabelledSet;
  readonly pictures: PictureSource;
  readonly dataset: Dataset;
}

export interface OpenedPictures {
  readonly samples: readonly PictureSample[];
  readonly pictures: PictureSource;
  readonly dataset: Dataset;
}

/** What the parts of a session have in common. */
interface SharedByParts {
  readonly closers: Closers;
  readonly line: StatusLine;
  /** By URL. */
  readonly datasets: Map<string, Promise<OpenedDataset>>;
  /** Of which datasets it was said how many samples have no label. */
  readonly unlabelledSaid: Set<string>;
  /** By all that was asked for. Decoded pictures take memory: the last ones only, what is learnt from and what is judged by. */
  readonly labelled: LRUCache<string, Promise<LabelledPictures>>;
}

/** What a transfer command has open; it is put away in reverse order, also after an interrupt. */
export class TransferSession {
  readonly engine: Engine;
  readonly context: CommandContext;
  readonly #options: ComputeOptions;
  readonly #closers: Closers;
  readonly #shared: SharedByParts;

  private constructor(
    context: CommandContext,
    options: ComputeOptions,
    modules: { readonly engine: Engine; readonly closers: Closers; readonly shared: SharedByParts },
  ) {
    this.context = context;
    this.#options = options;
    this.engine = modules.engine;
    this.#closers = modules.closers;
    this.#shared = modules.shared;
  }

  static async run<T>(
    context: CommandContext,
    options: ComputeOptions,
    work: (session: TransferSession) => Promise<T>,
  ): Promise<T> {
    const { loadEngine } = await import('../../engine/index.ts');
    const closers = new Closers();
    try {
      const { engine: name = 'auto', threads = availableParallelism() } = options;
      const engine = closers.add(await loadEngine({ engine: name, threads }), (one) => one.close());
      const line = closers.add(new StatusLine(context.output, () => context.clock.now()), (one) => one.close());
      const shared = {
        closers,
        line,
        datasets: new Map(),
        unlabelledSaid: new Set<string>(),
        labelled: new LRUCache<string, Promise<LabelledPictures>>({ max: LABELLED_MAX }),
      };
      return await work(new TransferSession(context, options, { engine, closers, shared }));
    } finally {
      await closers.close(context.logger);
    }
  }

  /** A part of the work with a session of its own: what it `own`s is closed at its end, datasets stay open for the next part. */
  async part<T>(work: (session: TransferSession) => Promise<T>): Promise<T> {
    const closers = new Closers();
    const { engine } = this;
    try {
      return await work(new TransferSession(this.context, this.#options, { engine, closers, shared: this.#shared }));
    } finally {
      await closers.close(this.context.logger);
    }
  }

  /** Whatever must be closed at the end. */
  own<T>(value: T, close: (value: T) => Promise<unknown> | unknown): T {
    return this.#closers.add(value, close);
  }

  /** Opened once, however often it is asked for. */
  openDataset(manifestUrl: string): Promise<OpenedDataset> {
    return once(this.#shared.datasets, manifestUrl, () => this.#openDataset(manifestUrl));
  }

  async #openDataset(manifestUrl: string): Promise<OpenedDataset> {
    const { openDataset, splitManifestUrl } = await import('../../worker/data/dataset.ts');
    const { ShardCache } = await import('../../worker/data/shard-cache.ts');
    const { logger, signal } = this.context;
    const { storeUrl: url, key } = splitManifestUrl(storeUrl(manifestUrl));
    const { closers } = this.#shared;
    const store = closers.add(storeOpener(this.context)(url), (one) => one.close());
    const dataset = await openDataset(store, key, { signal });
    const dir = this.#options.cacheDir ?? defaultCacheDir();
    const cache = new ShardCache({ dir, bytesMax: CACHE_BYTES_MAX }, { store, logger });
    return { dataset, cache: closers.add(cache, (one) => one.close()) };
  }

  /** The labelled pictures that can be decoded; the same for the same question. */
  openLabelled(manifestUrl: string, labels: LabelsWanted, pictures: PicturesWanted): Promise<LabelledPictures> {
    const question = JSON.stringify([manifestUrl, labels, pictures]);
    return once(this.#shared.labelled, question, () => this.#openLabelled(manifestUrl, labels, pictures));
  }

  async #openLabelled(manifestUrl: string, labels: LabelsWanted, pictures: PicturesWanted): Promise<LabelledPictures> {
    const { dataset, cache } = await this.openDataset(manifestUrl);
    const set = await this.readLabels(dataset, labels);
    const readable = await this.#readable(set.samples, cache, pictures);
    return { set: { ...set, samples: readable.samples }, pictures: readable.pictures, dataset };
  }

  /** The labelled samples of a dataset that is open, readable or not. */
  async readLabels(dataset: Dataset, labels: LabelsWanted): Promise<LabelledSet> {
    const { readLabelledSet } = await import('../../transfer/data/labelled-set.ts');
    const { signal } = this.context;
    const set = await readLabelledSet(dataset, { metaKey: labels.labelKey, classes: labels.classes }, signal);
    this.sayUnlabelled(set, dataset);
    return set;
  }

  /** Once for a dataset and its labels, however often they are read. */
  sayUnlabelled({ unlabelled }: LabelledSet, { sampleCount, sha256 }: Dataset): void {
    const { unlabelledSaid } = this.#shared;
    const fact = `${sha256} ${unlabelled}`;
    if (unlabelled === 0 || unlabelledSaid.has(fact)) return;
    unlabelledSaid.add(fact);
    this.context.output.message(`${unlabelled} of ${sampleCount} samples have no label: left out`);
  }

  /** All pictures of a dataset that can be decoded. Labels it may have are not looked at. */
  async openPictures(manifestUrl: string, wanted: PicturesWanted): Promise<OpenedPictures> {
    const { dataset, cache } = await this.openDataset(manifestUrl);
    const all: PictureSample[] = [];
    for await (const located of dataset.samples(this.context.signal)) all.push({ located });
    return { ...(await this.#readable(all, cache, wanted)), dataset };
  }

  async #readable<S extends PictureSample>(
    all: readonly S[],
    cache: ShardCache,
    wanted: PicturesWanted,
  ): Promise<{ readonly samples: S[]; readonly pictures: PictureSource }> {
    const { PictureSource } = await import('../../transfer/data/picture-source.ts');
    const { signal, output } = this.context;
    const pictures = new PictureSource({ ...wanted, pixelsMax: PIXELS_MAX_DEFAULT }, { cache });
    const broken = await pictures.findBroken(
      all.map(({ located }) => located),
      signal,
    );
    for (const { sampleId, reason } of broken) output.warn(leftOut(sampleId, reason));
    if (all.length > 0 && broken.length === all.length) throw noneReadable(all.length, broken[0]);
    const brokenIds = new Set(broken.map(({ sampleId }) => sampleId));
    return { samples: all.filter(({ located }) => !brokenIds.has(located.sampleId)), pictures };
  }

  /** `what 120/800 · … · ETA 2 min 3 s` on the status line. `done` counts what this process did of what it had to do. */
  progress(what: string): (done: number, total: number, more?: string) => void {
    const startedMs = this.context.clock.now();
    return (done, total, more) => {
      const seconds = (this.context.clock.now() - startedMs) / 1000;
      const left = done === 0 ? Number.NaN : (seconds / done) * (total - done);
      this.#shared.line.update(`${what} ${done}/${total}${more ? ` · ${more}` : ''} · ETA ${formatDuration(left)}`);
    };
  }

  /** ISO 8601. */
  now(): string {
    return new Date(this.context.clock.now()).toISOString();
  }

  /** A line that stays. */
  say(text: string): void {
    this.#shared.line.print(text);
  }
}

interface KeptPromises<T> {
  get(key: string): Promise<T> | undefined;
  set(key: string, value: Promise<T>): unknown;
}

function once<T>(kept: KeptPromises<T>, key: string, make: () => Promise<T>): Promise<T> {
  const found = kept.get(key) ?? make();
  kept.set(key, found);
  return found;
}

/** What is said of a picture that cannot be read. */
export const leftOut = (sampleId: string, reason: string) => `${sampleId} left out: ${reason}`;

/** What is said of a dataset of which nothing is left. */
export function noneReadable(
  pictures: number,
  first?: { readonly sampleId: string; readonly reason: string },
): CoveyError {
  const example = first === undefined ? '' : `, ${first.sampleId} for one: ${first.reason}`;
  return new CoveyError(
    'INVALID_ARGUMENT',
    `Cannot use the dataset: none of its ${pictures} pictures can be read${example}; look at the files it was packed from, and pack it again`,
    { fields: { pictures } },
  );
}

/** `1/4`: the first of four parts. */
export function partOption(text: string): { index: number; of: number } {
  const [, index, of] = (/^(\d+)\/(\d+)$/.exec(text) ?? []).map(Number);
  if (index === undefined || of === undefined || index < 1 || index > of) {
    throw new InvalidArgumentError('write 1/4 for the first of four parts.');
  }
  return { index: index - 1, of };
}

/** Parser of a number within bounds. */
export function realNumber(min: number, max = Number.POSITIVE_INFINITY): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() !== '' && value >= min && value <= max) return value;
    throw new InvalidArgumentError(
      `must be a number from ${min}${max === Number.POSITIVE_INFINITY ? ' up' : ` to ${max}`}.`,
    );
  };
}
