import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { parquetWriteBuffer } from 'hyparquet-writer';
import { z } from 'zod';
import { CoveyError } from '../../common/errors.ts';
import { readJsonFile, writeJsonFile } from '../../common/json-file.ts';
import { makeFolder, writeWhole } from '../../common/whole-file.ts';
import {
  type EmbeddedShard,
  type EmbeddingKey,
  type EmbeddingStore,
  joinedShards,
  keySchema,
} from './embedding-store.ts';
import { type Matrix, readNpy, writeNpy } from './npy.ts';

export const EMBEDDING_FORMATS = ['npy', 'parquet'] as const;
export type EmbeddingFormat = (typeof EMBEDDING_FORMATS)[number];

/** What a folder of embeddings is of. Written first; a folder is only gone on with where all of it is the same. */
const factsSchema = z.strictObject({
  version: z.literal(1),
  /** Digest and origin of the backbone. */
  backbone: z.strictObject({ digest: z.string(), origin: z.string() }),
  dataset: z.strictObject({ name: z.string(), sha256: z.string(), manifest: z.string() }),
  dimensions: z.int().positive(),
  formats: z.array(z.enum(EMBEDDING_FORMATS)).min(1),
  /** Rows are as the tower gives them, or of unit length. */
  normalised: z.boolean(),
});

export type EmbeddingFacts = z.infer<typeof factsSchema>;

const FACTS = 'embeddings.json';

/**
 * A folder of embeddings: `embeddings.json` says of what, then one set of files per shard of the dataset: `NNNNN.keys.jsonl` with a line per
 * row, `NNNNN.npy` and, where asked for, `NNNNN.parquet`. The keys are written last and whole, so a shard with keys is finished.
 */
export class EmbeddingFolder implements EmbeddingStore {
  readonly folder: string;
  readonly facts: EmbeddingFacts;

  private constructor(folder: string, facts: EmbeddingFacts) {
    this.folder = folder;
    this.facts = facts;
  }

  /** Opens the folder for writing, makes it where there is none. @throws CoveyError INVALID_ARGUMENT where it is of something else */
  static async prepare(folder: string, facts: EmbeddingFacts): Promise<EmbeddingFolder> {
    await makeFolder(folder);
    const found = await readFacts(folder);
    if (found === undefined) await writeJsonFile(path.join(folder, FACTS), facts);
    else expectSame(folder, found, facts);
    return new EmbeddingFolder(folder, facts);
  }

  /** @throws CoveyError NOT_FOUND where the folder holds no embeddings */
  static async open(folder: string): Promise<EmbeddingFolder> {
    const facts = await readFacts(folder);
    if (facts !== undefined) return new EmbeddingFolder(folder, facts);
    throw new CoveyError(
      'NOT_FOUND',
      `Cannot read embeddings: ${folder} has no ${FACTS}; make them with \`covey embed\``,
    );
  }

  get normalised(): boolean {
    return this.facts.normalised;
  }

  /** Numbers of the finished shards, in order. */
  async finishedShards(): Promise<number[]> {
    const names = await readdir(this.folder);
    return names
      .flatMap((name) => /^(\d+)\.keys\.jsonl$/.exec(name)?.[1] ?? [])
      .map(Number)
      .sort((a, b) => a - b);
  }

  async write(shard: number, { keys, features }: EmbeddedShard): Promise<void> {
    await writeWhole(this.#file(shard, 'npy'), writeNpy(features));
    if (this.facts.formats.includes('parquet')) {
      await writeWhole(this.#file(shard, 'parquet'), parquetOf(keys, features));
    }
    await writeWhole(this.#file(shard, 'keys.jsonl'), keys.map((key) => `${JSON.stringify(key)}\n`).join(''));
  }

  async read(shard: number): Promise<EmbeddedShard> {
    const lines = (await readFile(this.#file(shard, 'keys.jsonl'), 'utf8')).split('\n').filter((line) => line !== '');
    const features = readNpy(await readFile(this.#file(shard, 'npy')));
    const keys = lines.map((line) => keySchema.parse(JSON.parse(line)));
    if (features.values.length !== keys.length * features.columns) {
      throw new CoveyError(
        'DATA_CORRUPT',
        `Cannot read embeddings: shard ${shard} of ${this.folder} has ${keys.length} keys for ${features.values.length / features.columns} rows; delete its files and run the command again`,
      );
    }
    return { keys, features };
  }

  /** Of the finished shards. */
  async countRows(): Promise<number> {
    const shards = await this.finishedShards();
    const texts = await Promise.all(shards.map((shard) => readFile(this.#file(shard, 'keys.jsonl'), 'utf8')));
    return texts.reduce((sum, text) => sum + text.split('\n').length - 1, 0);
  }

  /** All finished shards one behind the other. */
  async readAll(): Promise<EmbeddedShard> {
    const shards: EmbeddedShard[] = [];
    for (const shard of await this.finishedShards()) shards.push(await this.read(shard));
    return joinedShards(shards, this.facts.dimensions);
  }

  #file(shard: number, ending: string): string {
    return path.join(this.folder, `${String(shard).padStart(5, '0')}.${ending}`);
  }
}

function parquetOf(keys: readonly EmbeddingKey[], { values, columns }: Matrix): Uint8Array {
  const rows = keys.map((_, row) => Array.from(values.subarray(row * columns, (row + 1) * columns)));
  const text = (pick: (key: EmbeddingKey) => unknown) =>
    keys.map((key) => (pick(key) === undefined ? null : String(pick(key))));
  const buffer = parquetWriteBuffer({
    schema: [
      { name: 'root', num_children: 4 },
      { name: 'key', type: 'BYTE_ARRAY', converted_type: 'UTF8', repetition_type: 'REQUIRED' },
      { name: 'label', type: 'BYTE_ARRAY', converted_type: 'UTF8', repetition_type: 'OPTIONAL' },
      { name: 'caption', type: 'BYTE_ARRAY', converted_type: 'UTF8', repetition_type: 'OPTIONAL' },
      { name: 'embedding', repetition_type: 'REQUIRED', num_children: 1, converted_type: 'LIST' },
      { name: 'list', repetition_type: 'REPEATED', num_children: 1 },
      { name: 'element', type: 'FLOAT', repetition_type: 'REQUIRED' },
    ],
    columnData: [
      { name: 'key', data: keys.map(({ key }) => key) },
      { name: 'label', data: text(({ label }) => label) },
      { name: 'caption', data: text(({ caption }) => caption) },
      { name: 'embedding', data: rows },
    ],
  });
  return new Uint8Array(buffer);
}

async function readFacts(folder: string): Promise<EmbeddingFacts | undefined> {
  const file = path.join(folder, FACTS);
  const found = await readJsonFile(file);
  if (found === undefined) return undefined;
  const parsed = factsSchema.safeParse(found);
  if (parsed.success) return parsed.data;
  throw new CoveyError('DATA_CORRUPT', `Cannot use ${file}: ${parsed.error.message}`);
}

function expectSame(folder: string, found: EmbeddingFacts, wanted: EmbeddingFacts): void {
  const different = Object.keys(wanted).filter(
    (key) => JSON.stringify(found[key as keyof EmbeddingFacts]) !== JSON.stringify(wanted[key as keyof EmbeddingFacts]),
  );
  if (different.length === 0) return;
  throw new CoveyError(
    'INVALID_ARGUMENT',
    `Cannot go on in ${folder}: it holds embeddings of something else (${different.join(', ')} differ: ${found.backbone.origin}, dataset ${found.dataset.name}); choose another folder`,
    { fields: { folder, different } },
  );
}
