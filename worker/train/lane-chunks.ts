import { type Tensor, tf } from '../../engine/index.ts';
import type { RowRange } from '../objectives/tiles.ts';
import type { LaneInput } from './lane-encoder.ts';

/**
 * A lane in chunks of its samples. Rows of `perSample` to a sample lie as the views of the pixels do: the first of every sample, then the
 * second; so a chunk of a lane is not one range of rows but `perSample` of them.
 */

/** The samples of each chunk, in order. @param microBatch divides `laneBatch` */
export function chunksOf(laneBatch: number, microBatch: number): RowRange[] {
  return Array.from({ length: laneBatch / microBatch }, (_, i) => ({ begin: i * microBatch, count: microBatch }));
}

/** The part of a lane's inputs that belongs to a chunk: views on them where that is possible. */
export function inputOfChunk(input: LaneInput, laneBatch: number, chunk: RowRange, views: number): LaneInput {
  if (chunk.count === laneBatch) return input;
  const { lane, pixels, tokens, labels, seeds } = input;
  const rows = <T extends Uint8Array | Int32Array | Uint32Array>(values: T): T => {
    const width = values.length / laneBatch;
    return values.subarray(chunk.begin * width, (chunk.begin + chunk.count) * width) as T;
  };
  return {
    lane,
    pixels: views === 1 ? rows(pixels) : pixelsOfChunk(pixels, laneBatch, chunk, views),
    tokens: rows(tokens),
    ...(labels && { labels: rows(labels) }),
    ...(seeds && { seeds: rows(seeds) }),
  };
}

function pixelsOfChunk(pixels: Uint8Array, laneBatch: number, { begin, count }: RowRange, views: number): Uint8Array {
  const width = pixels.length / (views * laneBatch);
  const own = new Uint8Array(views * count * width);
  for (let view = 0; view < views; view++) {
    const first = (view * laneBatch + begin) * width;
    own.set(pixels.subarray(first, first + count * width), view * count * width);
  }
  return own;
}

/** One output of a lane from those of its chunks, [perSample × b, width]. The chunks stay the caller's. */
export function mergeChunks(chunks: readonly Tensor[], perSample: number): Tensor {
  return tf.tidy(() => {
    const views = chunks.map((rows) => tf.reshape(rows, [perSample, -1, rows.shape[1]!]));
    const merged = tf.concat(views, 1);
    return tf.reshape(merged, [-1, merged.shape[2]!]);
  });
}

/** A chunk's rows of an output of the lane, [perSample × n, width]. */
export function rowsOfChunk(rows: Tensor, { begin, count }: RowRange, perSample: number): Tensor {
  return tf.tidy(() => {
    const width = rows.shape[1]!;
    const own = tf.slice(tf.reshape(rows, [perSample, -1, width]), [0, begin, 0], [perSample, count, width]);
    return tf.reshape(own, [perSample * count, width]);
  });
}
