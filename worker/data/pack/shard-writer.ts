import { encodeJson, type IndexedSample, SHARD_INDEX_VERSION, type ShardEntry } from '../manifest.ts';
import { sha256Hex } from '../sha256.ts';
import { paddedSize, TAR_BLOCK, tarHeader } from '../tar-headers.ts';

export interface PackedPicture {
  readonly bytes: Uint8Array;
  readonly extension: string;
  readonly width: number;
  readonly height: number;
  readonly captions: readonly string[];
  readonly captionSources?: readonly string[];
  readonly label?: IndexedSample['label'];
  readonly meta?: IndexedSample['meta'];
}

export interface FinishedShard {
  readonly entry: ShardEntry;
  readonly tar: Uint8Array;
  readonly index: Uint8Array;
}

/**
 * Builds WebDataset tars (`key.jpg`, `key.txt`, `key.json`) with their indices, in memory, one shard at a time. The bytes depend
 * on the samples alone, and files are named by their hashes, so packing again writes the same objects.
 */
export class ShardWriter {
  readonly #bytesMax: number;
  readonly #samplesMax: number;
  #parts: Uint8Array[] = [];
  #bytes = 0;
  #samples: IndexedSample[] = [];
  #sampleNumber = 0;
  #shardNumber = 0;

  constructor(options: { readonly shardBytesMax: number; readonly samplesPerShardMax: number }) {
    this.#bytesMax = options.shardBytesMax;
    this.#samplesMax = options.samplesPerShardMax;
  }

  /** Adds a sample; returns the shard before it where that one is full. A sample larger than a shard gets one of its own. */
  add(picture: PackedPicture): FinishedShard | undefined {
    const key = String(this.#sampleNumber++).padStart(9, '0');
    const encoder = new TextEncoder();
    const { captions, captionSources, label, meta, width, height } = picture;
    const sidecar = {
      ...meta,
      key,
      caption: captions[0],
      width,
      height,
      ...(captions.length > 1 ? { captions } : {}),
      ...(captionSources === undefined ? {} : { captionSources }),
      ...(label === undefined ? {} : { label }),
    };
    const files: [string, Uint8Array][] = [
      [picture.extension, picture.bytes],
      ...(captions[0] === undefined ? [] : [['txt', encoder.encode(captions[0])] as [string, Uint8Array]]),
      ['json', encoder.encode(JSON.stringify(sidecar))],
    ];
    const size = files.reduce((sum, [, bytes]) => sum + TAR_BLOCK + paddedSize(bytes.byteLength), 0);
    const isFull =
      this.#samples.length > 0 &&
      (this.#bytes + size + 2 * TAR_BLOCK > this.#bytesMax || this.#samples.length >= this.#samplesMax);
    const finished = isFull ? this.finish() : undefined;
    this.#append(key, files, picture);
    return finished;
  }

  /** The shard at hand, or undefined where it is empty. */
  finish(): FinishedShard | undefined {
    if (this.#samples.length === 0) return undefined;
    const tar = Buffer.concat([...this.#parts, new Uint8Array(2 * TAR_BLOCK)]);
    const index = encodeJson({ version: SHARD_INDEX_VERSION, samples: this.#samples });
    const sha256 = sha256Hex(tar);
    const indexSha256 = sha256Hex(index);
    const number = String(this.#shardNumber++).padStart(5, '0');
    const entry: ShardEntry = {
      key: `${sha256.slice(0, 2)}/${number}-${sha256.slice(0, 16)}.tar`,
      bytes: tar.byteLength,
      sha256,
      samples: this.#samples.length,
      indexKey: indexKey(number, indexSha256),
      indexSha256,
    };
    this.#parts = [];
    this.#bytes = 0;
    this.#samples = [];
    return { entry, tar, index };
  }

  #append(key: string, files: readonly (readonly [string, Uint8Array])[], picture: PackedPicture): void {
    const extents: Record<string, [number, number]> = {};
    for (const [extension, bytes] of files) {
      const size = bytes.byteLength;
      this.#parts.push(tarHeader(`${key}.${extension}`, size), bytes, new Uint8Array(paddedSize(size) - size));
      extents[extension] = [this.#bytes + TAR_BLOCK, size];
      this.#bytes += TAR_BLOCK + paddedSize(size);
    }
    const { captions, captionSources, label, meta } = picture;
    this.#samples.push({
      key,
      image: picture.extension,
      files: extents,
      captions: [...captions],
      ...(captionSources === undefined ? {} : { captionSources: [...captionSources] }),
      ...(label === undefined ? {} : { label }),
      ...(meta === undefined ? {} : { meta }),
    });
  }
}

/** Spread over 256 prefixes: S3 limits requests per prefix. */
export function indexKey(name: string, indexSha256: string): string {
  return `${indexSha256.slice(0, 2)}/${name}-${indexSha256.slice(0, 16)}.index.json`;
}
