import { LRUCache } from 'lru-cache';
import pLimit, { type LimitFunction } from 'p-limit';
import type { AugmentConfig } from '../../common/config/augment-config.ts';
import { CoveyError, throwIfAborted } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';
import { mixKey, RandomStream } from '../../common/random.ts';
import { TrainTransform } from '../../models/preprocess/train-transform.ts';
import type { ViewIdentity } from '../../models/preprocess/view-identity.ts';
import type { Tokenizer } from '../../models/tokenizer/tokenizer.ts';
import { type CaptionChoice, chooseCaption } from './caption-choice.ts';
import type { LocatedSample } from './dataset.ts';
import { type Classes, LabelIndex } from './label-index.ts';
import type { Plan } from './plan.ts';
import type { SampleSet, ShardReader } from './sample-set.ts';
import { DecodedCache, readImageBytes } from './sample-source.ts';

/** Candidates drawn for one broken sample; so many broken ones in a row mean the dataset is unusable. */
const REPLACEMENTS_MAX = 64;
const CAPTIONS_KEPT = 65_536;
const ANY_CAPTION: CaptionChoice = { choose: 'random' };

export interface LaneLoaderOptions {
  readonly plan: Plan;
  readonly imageSide: number;
  readonly augment: AugmentConfig;
  /** `side` 0: from the file each time. Otherwise decoded once to side×side, kept in at most `bytesMax`. */
  readonly decoded: { readonly side: number; readonly bytesMax: number };
  readonly pixelsMax: number;
  /** Augmented pictures per sample, each with randomness of its own; with 0 no picture is read. Default 1. */
  readonly views?: number;
  /** False: no captions, `tokens` are empty. Default true. */
  readonly captions?: boolean;
  /** Which of several captions a showing takes. Default: any. */
  readonly captionChoice?: CaptionChoice;
  /** Where labels are wanted: the classes they are looked up in. */
  readonly classes?: Classes | undefined;
  /** Pictures in the making at once, over all lanes. Default 4, the size of libuv's pool. */
  readonly concurrency?: number;
}

export interface LaneLoaderModules {
  readonly dataset: SampleSet;
  readonly cache: ShardReader;
  /** Not used without captions. */
  readonly tokenizer: Tokenizer | null;
  readonly logger: Logger;
  readonly metrics?: LaneLoaderMetrics | null;
}

export interface LaneLoaderMetrics {
  /** Each broken sample, once per process. */
  sampleBad(reason: string): void;
  /** A sample's views are made: `decoded` where its file had to be decoded for them. */
  pictureMade(seconds: number, decoded: boolean): void;
}

/** Where a lane's batch goes; may lie in shared memory. */
export interface LaneBuffers {
  /** uint8 RGB, [views, laneBatch, imageSide, imageSide, 3]. */
  readonly pixels: Uint8Array;
  /** [laneBatch, contextLength]; empty without captions. */
  readonly tokens: Int32Array;
  /** Class indices, [laneBatch]; empty without labels. */
  readonly labels: Int32Array;
  /** One 32-bit seed per sample, [laneBatch], a pure function of (plan's seed, showing, sample). */
  readonly seeds: Uint32Array;
}

/** Sizes of a lane's buffers, in the order of `LaneBuffers`. */
export interface LaneGeometry {
  readonly pixelBytes: number;
  readonly tokenCount: number;
  readonly labelCount: number;
  readonly seedCount: number;
}

export interface ReplacedSample {
  readonly sampleId: string;
  readonly reason: string;
  readonly replacedBy: string;
}

export interface LoadedLane {
  readonly step: number;
  readonly lane: number;
  readonly epoch: number;
  /** What was consumed, in batch order (replacements under their own id), [laneBatch]. */
  readonly sampleIds: readonly string[];
  readonly replaced: readonly ReplacedSample[];
  /** How many samples of each dataset were consumed, by its name. */
  readonly samplesByDataset: Readonly<Record<string, number>>;
}

/**
 * Fills lanes: plan → shard cache → decode → augment and tokenise. A batch is a pure function of (plan, step, lane): which
 * worker loads it, what is cached and what was loaded before never show in it.
 *
 * A broken sample is replaced by the next whole one of its dataset, of a sequence drawn from (seed, showing, its index), the same at every
 * world size. A shard that cannot be read is not a broken sample: it fails the load with an error that names it.
 */
export class LaneLoader {
  readonly options: LaneLoaderOptions;
  readonly #dataset: SampleSet;
  readonly #cache: ShardReader;
  readonly #tokenizer: Tokenizer | null;
  readonly #views: number;
  readonly #labels: LabelIndex | undefined;
  readonly #logger: Logger;
  readonly #metrics: LaneLoaderMetrics | null;
  readonly #transform: TrainTransform;
  readonly #decoded: DecodedCache | undefined;
  readonly #limit: LimitFunction;
  /**
   * Broken samples that were named already. They are tried again at every showing: a crop may end before the broken byte, and what was
   * loaded before must not show.
   */
  readonly #named = new Set<number>();
  readonly #tokens = new LRUCache<string, Int32Array>({ max: CAPTIONS_KEPT });

  constructor(options: LaneLoaderOptions, modules: LaneLoaderModules) {
    this.options = options;
    this.#dataset = modules.dataset;
    this.#cache = modules.cache;
    const { views = 1, captions = true, classes } = options;
    this.#views = views;
    this.#tokenizer = captions ? modules.tokenizer : null;
    this.#labels = classes === undefined ? undefined : new LabelIndex(classes, modules.dataset.classes);
    this.#logger = modules.logger;
    this.#metrics = modules.metrics ?? null;
    const { plan, decoded } = options;
    if (plan.sampleCount !== modules.dataset.sampleCount) {
      throw new CoveyError(
        'INVALID_ARGUMENT',
        `Cannot load lanes: the plan is for ${plan.sampleCount} samples, the dataset has ${modules.dataset.sampleCount}`,
      );
    }
    this.#transform = new TrainTransform({ ...options, seed: plan.seed, decodedSide: decoded.side });
    this.#decoded = decoded.side > 0 ? new DecodedCache({ bytesMax: decoded.bytesMax }) : undefined;
    this.#limit = pLimit(options.concurrency ?? 4);
  }

  /** Sizes of the buffers that `load` fills. */
  get geometry(): LaneGeometry {
    const { plan, imageSide } = this.options;
    return {
      pixelBytes: this.#views * plan.laneBatch * imageSide ** 2 * 3,
      tokenCount: plan.laneBatch * (this.#tokenizer?.contextLength ?? 0),
      labelCount: this.#labels === undefined ? 0 : plan.laneBatch,
      seedCount: plan.laneBatch,
    };
  }

  /**
   * Fills `into` with one lane of one step. On an error, also CANCELLED, nobody writes to `into` any more once it is thrown.
   * Throws DATA_CORRUPT for an unreadable shard (`fields.shard`) or a dataset with too many broken samples.
   */
  async load(step: number, lane: number, into: LaneBuffers, signal?: AbortSignal): Promise<LoadedLane> {
    throwIfAborted(signal);
    this.#checkBuffers(into);
    const { epoch, sampleIndices, showings } = this.options.plan.laneSamples(step, lane);
    const imageBytes = this.options.imageSide ** 2 * 3;
    const replaced: ReplacedSample[] = [];
    const samplesByDataset: Record<string, number> = {};
    const tasks = Array.from(sampleIndices, (sampleIndex, row) => {
      const views = Array.from({ length: this.#views }, (_, view) => {
        const begin = (view * this.options.plan.laneBatch + row) * imageBytes;
        return into.pixels.subarray(begin, begin + imageBytes);
      });
      return this.#limit(async () => {
        throwIfAborted(signal);
        const showing = showings[row]!;
        const { located, replacement } = await this.#fillOrReplace(showing, sampleIndex, views, signal);
        this.#describe(located, showing, row, into);
        const { name } = this.#dataset.rangeOf(located.sampleIndex);
        samplesByDataset[name] = (samplesByDataset[name] ?? 0) + 1;
        if (replacement !== undefined) replaced.push(replacement);
        return located.sampleId;
      });
    });
    // All must have settled before an error leaves: the caller reuses the buffers.
    const results = await Promise.allSettled(tasks);
    const sampleIds = results.map((result) => {
      if (result.status === 'rejected') throw result.reason;
      return result.value;
    });
    replaced.sort((a, b) => (a.sampleId < b.sampleId ? -1 : 1));
    return { step, lane, epoch, sampleIds, replaced, samplesByDataset };
  }

  /** Caption, label and seed of a sample that was not refused. */
  #describe(located: LocatedSample, showing: number, row: number, into: LaneBuffers): void {
    const tokenizer = this.#tokenizer;
    if (tokenizer !== null) {
      into.tokens.set(this.#encode(tokenizer, this.#caption(located, showing)), row * tokenizer.contextLength);
    }
    const label = this.#labels?.indexOf(located.record);
    if (typeof label === 'number') into.labels[row] = label;
    into.seeds[row] = mixKey('sample', this.options.plan.seed, showing, located.sampleIndex)[0];
  }

  async #fillOrReplace(
    showing: number,
    sampleIndex: number,
    views: readonly Uint8Array[],
    signal: AbortSignal | undefined,
  ): Promise<{ readonly located: LocatedSample; readonly replacement?: ReplacedSample }> {
    const wanted = await this.#dataset.locate(sampleIndex, signal);
    const reason = await this.#fill(showing, wanted, views, signal);
    if (reason === undefined) return { located: wanted };
    const draws = new RandomStream('replace', this.options.plan.seed, showing, sampleIndex);
    const { firstSample, sampleCount } = this.#dataset.rangeOf(sampleIndex);
    for (let draw = 0; draw < REPLACEMENTS_MAX; draw++) {
      const candidate = await this.#dataset.locate(firstSample + draws.integer(sampleCount), signal);
      if ((await this.#fill(showing, candidate, views, signal)) === undefined) {
        const replacement = { sampleId: wanted.sampleId, reason, replacedBy: candidate.sampleId };
        return { located: candidate, replacement };
      }
    }
    throw new CoveyError(
      'DATA_CORRUPT',
      `Cannot replace broken sample ${wanted.sampleId}: ${REPLACEMENTS_MAX} drawn candidates are broken too; check the dataset`,
      {
        fields: { sampleId: wanted.sampleId, reason },
      },
    );
  }

  /** Writes every view of a sample; returns the reason where it is broken. Throws where its shard cannot be read. */
  async #fill(
    showing: number,
    located: LocatedSample,
    views: readonly Uint8Array[],
    signal: AbortSignal | undefined,
  ): Promise<string | undefined> {
    const { sampleIndex } = located;
    const label = this.#labels?.indexOf(located.record);
    if (typeof label === 'string') return this.#note(located, label, 'its label is not one of loss.classes');
    if (this.#tokenizer !== null && located.record.captions.length === 0)
      return this.#note(located, 'caption-missing', 'it has no caption');
    const identities = views.map((_, view): ViewIdentity => ({ epoch: showing, sampleIndex, view }));
    const fromDecoded = (decoded: Uint8Array) => {
      for (const [view, pixels] of views.entries()) this.#transform.fromDecoded(decoded, identities[view]!, pixels);
    };
    if (views.length === 0) return undefined;
    const kept = this.#decoded?.peek(sampleIndex);
    if (kept !== undefined) {
      const begin = performance.now();
      fromDecoded(kept);
      this.#metrics?.pictureMade((performance.now() - begin) / 1000, false);
      return undefined;
    }
    const bytes = await readImageBytes(this.#cache, located, signal);
    const begin = performance.now();
    try {
      if (this.#decoded === undefined) {
        await this.#transform.viewsOfFile(bytes, identities, views);
      } else {
        fromDecoded(await this.#decoded.get(sampleIndex, () => this.#transform.decode(bytes)));
      }
      this.#metrics?.pictureMade((performance.now() - begin) / 1000, true);
      return undefined;
    } catch (thrown) {
      return this.#remember(located, thrown);
    }
  }

  #remember(located: LocatedSample, thrown: unknown): string {
    if (!CoveyError.is(thrown, 'DATA_CORRUPT') || typeof thrown.fields['reason'] !== 'string') throw thrown;
    return this.#note(located, thrown.fields['reason'], thrown.message);
  }

  /** Counts and names a broken sample the first time it is met. */
  #note(located: LocatedSample, reason: string, detail: string): string {
    if (!this.#named.has(located.sampleIndex)) {
      this.#named.add(located.sampleIndex);
      this.#metrics?.sampleBad(reason);
      this.#logger.warn({ sampleId: located.sampleId, reason, detail }, 'broken sample replaced');
    }
    return reason;
  }

  #caption({ record, sampleIndex }: LocatedSample, showing: number): string {
    const draw = () => new RandomStream('caption', this.options.plan.seed, showing, sampleIndex);
    return chooseCaption(record, this.options.captionChoice ?? ANY_CAPTION, draw) ?? '';
  }

  #encode(tokenizer: Tokenizer, caption: string): Int32Array {
    let tokens = this.#tokens.get(caption);
    if (tokens === undefined) {
      tokens = tokenizer.encode(caption);
      this.#tokens.set(caption, tokens);
    }
    return tokens;
  }

  #checkBuffers(into: LaneBuffers): void {
    const wanted = Object.values(this.geometry);
    const given = [into.pixels.length, into.tokens.length, into.labels.length, into.seeds.length];
    if (wanted.every((count, i) => count === given[i])) return;
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot load a lane: buffers hold [${given}] bytes, tokens, labels and seeds, a lane has [${wanted}]`,
    );
  }
}

/** Memory for one lane that several threads see. */
export function sharedLaneBuffers({ pixelBytes, tokenCount, labelCount, seedCount }: LaneGeometry): LaneBuffers {
  return {
    pixels: new Uint8Array(new SharedArrayBuffer(pixelBytes)),
    tokens: new Int32Array(new SharedArrayBuffer(4 * tokenCount)),
    labels: new Int32Array(new SharedArrayBuffer(4 * labelCount)),
    seeds: new Uint32Array(new SharedArrayBuffer(4 * seedCount)),
  };
}
