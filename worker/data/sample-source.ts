import { LRUCache } from 'lru-cache';
import { CoveyError } from '../../common/errors.ts';
import type { LocatedSample } from './dataset.ts';
import type { ShardReader } from './sample-set.ts';

/** The bytes of a located sample's picture. Throws what ShardCache.read throws. */
export function readImageBytes(cache: ShardReader, located: LocatedSample, signal?: AbortSignal): Promise<Uint8Array> {
  const extent = located.record.files[located.record.image];
  if (extent === undefined) {
    throw new CoveyError(
      'DATA_CORRUPT',
      `Cannot read sample ${located.sampleId}: its index entry has no ${located.record.image} file`,
      {
        fields: { shard: located.shard.key, sampleId: located.sampleId },
      },
    );
  }
  return cache.read(located.shard, extent[0], extent[1], signal);
}

/**
 * Decoded squares in memory, bounded in bytes, least recently used first out. A miss decodes again to the same pixels, so what
 * is in the cache never shows in a batch. Concurrent callers share one decode.
 */
export class DecodedCache {
  readonly #pictures: LRUCache<number, Uint8Array>;
  readonly #decoding = new Map<number, Promise<Uint8Array>>();

  constructor(options: { readonly bytesMax: number }) {
    this.#pictures = new LRUCache({
      maxSize: Math.max(options.bytesMax, 1),
      sizeCalculation: (pixels) => pixels.byteLength,
    });
  }

  get bytes(): number {
    return this.#pictures.calculatedSize;
  }

  /** The picture at hand, or undefined: the fast way in, without a promise. */
  peek(sampleIndex: number): Uint8Array | undefined {
    return this.#pictures.get(sampleIndex);
  }

  async get(sampleIndex: number, decode: () => Promise<Uint8Array>): Promise<Uint8Array> {
    const kept = this.#pictures.get(sampleIndex);
    if (kept !== undefined) return kept;
    let pending = this.#decoding.get(sampleIndex);
    if (pending === undefined) {
      pending = decode();
      this.#decoding.set(sampleIndex, pending);
      const done = () => this.#decoding.delete(sampleIndex);
      pending.then((pixels) => {
        done();
        this.#pictures.set(sampleIndex, pixels);
      }, done);
    }
    return pending;
  }
}
