import { pickedRows } from '../../common/picked-rows.ts';
import type { PictureSample } from '../data/picture-source.ts';
import type { EmbeddedShard } from './embedding-store.ts';

/** Embeddings by sample: of pictures that could not be read there are none. */
export class SampleRows {
  /** Numbers of an embedding. */
  readonly columns: number;
  readonly #values: Float32Array;
  readonly #rowOf: ReadonlyMap<string, number>;

  constructor({ keys, features }: EmbeddedShard) {
    this.columns = features.columns;
    this.#values = features.values;
    this.#rowOf = new Map(keys.map(({ key }, row) => [key, row]));
  }

  get count(): number {
    return this.#rowOf.size;
  }

  has({ located }: PictureSample): boolean {
    return this.#rowOf.has(located.sampleId);
  }

  /** [samples, columns], of samples that it `has`. */
  of(samples: readonly PictureSample[]): Float32Array {
    const rows = samples.map(({ located }) => this.#rowOf.get(located.sampleId)!);
    return pickedRows(this.#values, this.columns, rows);
  }
}
