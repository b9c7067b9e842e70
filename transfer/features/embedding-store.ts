import { z } from 'zod';
import { concatenated } from '../../common/concatenated.ts';
import type { Matrix } from './npy.ts';

/** A row's sample. */
export const keySchema = z.object({
  key: z.string(),
  label: z.union([z.string(), z.number()]).optional(),
  caption: z.string().optional(),
});
export type EmbeddingKey = z.infer<typeof keySchema>;

export interface EmbeddedShard {
  readonly keys: readonly EmbeddingKey[];
  readonly features: Matrix;
}

/** Where embeddings go, shard by shard. */
export interface EmbeddingStore {
  /** Rows are brought to unit length. */
  readonly normalised: boolean;
  /** Numbers of the finished shards, in order. */
  finishedShards(): Promise<number[]>;
  write(shard: number, embedded: EmbeddedShard): Promise<void>;
  /** All finished shards one behind the other. */
  readAll(): Promise<EmbeddedShard>;
}

/** Embeddings that nobody wants to keep. */
export class EmbeddingMemory implements EmbeddingStore {
  readonly normalised: boolean;
  readonly #columns: number;
  readonly #shards = new Map<number, EmbeddedShard>();

  constructor(options: { readonly columns: number; readonly normalised: boolean }) {
    this.normalised = options.normalised;
    this.#columns = options.columns;
  }

  async finishedShards(): Promise<number[]> {
    return [...this.#shards.keys()].sort((a, b) => a - b);
  }

  async write(shard: number, embedded: EmbeddedShard): Promise<void> {
    this.#shards.set(shard, embedded);
  }

  async readAll(): Promise<EmbeddedShard> {
    const numbers = await this.finishedShards();
    return joinedShards(
      numbers.map((number) => this.#shards.get(number)!),
      this.#columns,
    );
  }
}

export function joinedShards(shards: readonly EmbeddedShard[], columns: number): EmbeddedShard {
  return {
    keys: shards.flatMap(({ keys }) => keys),
    features: { values: concatenated(shards.map(({ features }) => features.values)), columns },
  };
}
