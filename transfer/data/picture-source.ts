import { LRUCache } from 'lru-cache';
import pLimit from 'p-limit';
import type { AugmentConfig } from '../../common/config/augment-config.ts';
import { CoveyError, throwIfAborted } from '../../common/errors.ts';
import { evalTransform } from '../../models/preprocess/eval-transform.ts';
import { TrainTransform } from '../../models/preprocess/train-transform.ts';
import type { LocatedSample } from '../../worker/data/dataset.ts';
import { readImageBytes } from '../../worker/data/sample-source.ts';
import type { ShardCache } from '../../worker/data/shard-cache.ts';

export interface PictureSourceOptions {
  /** Side of the network's input. */
  readonly imageSide: number;
  readonly pixelsMax: number;
  readonly augment: AugmentConfig;
  readonly seed: number;
  /** Side of the squares that are kept decoded and augmented from. Default: a third more than `imageSide`. */
  readonly decodedSide?: number;
  /** Memory for pictures kept decoded. Default 1 GiB. */
  readonly bytesMax?: number;
}

/** Whatever has a picture. */
export interface PictureSample {
  readonly located: LocatedSample;
}

export interface BrokenPicture {
  readonly sampleId: string;
  readonly reason: string;
}

const BYTES_MAX = 2 ** 30;
const CONCURRENCY = 4;

/** A labelled set's pictures, as evaluation and training want them; decoded ones are kept in memory as far as it is allowed. */
export class PictureSource {
  readonly imageSide: number;
  readonly #options: PictureSourceOptions;
  readonly #cache: ShardCache;
  readonly #transform: TrainTransform;
  /** By kind and place: `e12` for evaluation, `t12` the square that views are drawn from. */
  readonly #kept: LRUCache<string, Uint8Array>;
  readonly #limit = pLimit(CONCURRENCY);

  constructor(options: PictureSourceOptions, modules: { readonly cache: ShardCache }) {
    const { imageSide, decodedSide = Math.ceil((imageSide * 4) / 3), bytesMax = BYTES_MAX } = options;
    this.imageSide = imageSide;
    this.#options = options;
    this.#cache = modules.cache;
    this.#transform = new TrainTransform({ ...options, decodedSide });
    this.#kept = new LRUCache({ maxSize: bytesMax, sizeCalculation: (pixels) => pixels.byteLength });
  }

  /** uint8 RGB [n, side, side, 3] through the evaluation transform. @throws DATA_CORRUPT with `fields.sampleId` for a broken picture */
  evalPixels(samples: readonly LocatedSample[], signal?: AbortSignal): Promise<Uint8Array> {
    return this.#collect(samples, (located) => this.#evalPicture(located, signal));
  }

  /** The same, each picture augmented anew for the epoch. */
  trainPixels(samples: readonly LocatedSample[], epoch: number, signal?: AbortSignal): Promise<Uint8Array> {
    return this.#collect(samples, async (located) => {
      const decoded = await this.#keep(`t${located.sampleIndex}`, located, signal, (bytes) =>
        this.#transform.decode(bytes),
      );
      const view = new Uint8Array(this.imageSide ** 2 * 3);
      this.#transform.fromDecoded(decoded, { epoch, sampleIndex: located.sampleIndex, view: 0 }, view);
      return view;
    });
  }

  /** Those that cannot be decoded, with the reason; the others are in memory afterwards. */
  async findBroken(samples: readonly LocatedSample[], signal?: AbortSignal): Promise<BrokenPicture[]> {
    const outcomes = await Promise.all(
      samples.map((located) =>
        this.#limit(async (): Promise<BrokenPicture | undefined> => {
          try {
            await this.#evalPicture(located, signal);
            return undefined;
          } catch (thrown) {
            const reason = CoveyError.is(thrown, 'DATA_CORRUPT') ? thrown.fields['reason'] : undefined;
            if (typeof reason !== 'string') throw thrown;
            return { sampleId: located.sampleId, reason };
          }
        }),
      ),
    );
    return outcomes.filter((one) => one !== undefined);
  }

  #evalPicture(located: LocatedSample, signal: AbortSignal | undefined): Promise<Uint8Array> {
    return this.#keep(`e${located.sampleIndex}`, located, signal, (bytes) =>
      evalTransform(bytes, this.imageSide, this.#options),
    );
  }

  async #collect(
    samples: readonly LocatedSample[],
    load: (located: LocatedSample) => Promise<Uint8Array>,
  ): Promise<Uint8Array> {
    const bytes = this.imageSide ** 2 * 3;
    const pixels = new Uint8Array(samples.length * bytes);
    await Promise.all(
      samples.map((located, row) =>
        this.#limit(async () => {
          pixels.set(await load(located), row * bytes);
        }),
      ),
    );
    return pixels;
  }

  async #keep(
    key: string,
    located: LocatedSample,
    signal: AbortSignal | undefined,
    make: (bytes: Uint8Array) => Promise<Uint8Array>,
  ): Promise<Uint8Array> {
    throwIfAborted(signal);
    const kept = this.#kept.get(key);
    if (kept !== undefined) return kept;
    const made = await make(await readImageBytes(this.#cache, located, signal));
    this.#kept.set(key, made);
    return made;
  }
}
