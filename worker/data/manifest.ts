import { z } from 'zod';

/**
 * What `covey pack` writes and training reads. Keys are relative to the folder of the manifest, so a dataset can be moved or
 * mirrored as it is. The manifest pins every shard and index by SHA-256; its own SHA-256 is the identity of the dataset.
 */
export const MANIFEST_VERSION = 1;
export const SHARD_INDEX_VERSION = 1;

const sha256 = z.string().regex(/^[0-9a-f]{64}$/, 'a SHA-256 in lower-case hex');
const count = z.int().min(0);
const relativeKey = z
  .string()
  .min(1)
  .refine(
    (key) => !key.startsWith('/') && !key.split('/').some((part) => part === '' || part === '.' || part === '..'),
    {
      message: 'must be a relative key without empty, . or .. parts',
    },
  );

const shardEntrySchema = z.strictObject({
  key: relativeKey,
  bytes: z.int().positive(),
  sha256,
  samples: z.int().positive(),
  indexKey: relativeKey,
  indexSha256: sha256,
});

export const datasetManifestSchema = z.strictObject({
  version: z.literal(MANIFEST_VERSION),
  name: z.string().min(1),
  sampleCount: z.int().positive(),
  shards: z.array(shardEntrySchema).min(1),
  sources: z
    .record(z.string(), z.string())
    .default({})
    .describe('Free text: where the pictures are from, and their licences'),
  tokenizer: relativeKey.optional().describe('Key of a tokenizer.json made for this dataset'),
  classes: z
    .array(z.string())
    .optional()
    .describe('Names of the labels in order, where folders named them: `loss.classes: <how many>` then counts in it'),
  filter: z
    .strictObject({ where: z.string(), ofManifestSha256: sha256.optional() })
    .optional()
    .describe('The condition its samples were chosen by, and the dataset they were chosen from'),
  createdBy: z.string(),
});

/** [offset, size] in the shard, bytes. */
const extentSchema = z.tuple([count, count]);

const indexedSampleSchema = z.strictObject({
  key: z.string(),
  image: z.string().describe('Extension under which `files` holds the picture'),
  files: z.record(z.string(), extentSchema),
  captions: z.array(z.string()).describe('Inline, so that captions cost no read. Several: one is drawn each time'),
  captionSources: z
    .array(z.string())
    .optional()
    .describe('Where each caption is from, in the same order: a file extension, a key of the json, a column'),
  label: z.union([z.int(), z.string()]).optional(),
  meta: z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null()])).optional(),
});

export const shardIndexSchema = z.strictObject({
  version: z.literal(SHARD_INDEX_VERSION),
  samples: z.array(indexedSampleSchema).min(1),
});

export type DatasetManifest = z.infer<typeof datasetManifestSchema>;
export type ShardEntry = z.infer<typeof shardEntrySchema>;
export type ShardIndex = z.infer<typeof shardIndexSchema>;
export type IndexedSample = z.infer<typeof indexedSampleSchema>;

/** Canonical bytes: the same manifest or index always has the same SHA-256. */
export function encodeJson(value: DatasetManifest | ShardIndex): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(value)}\n`);
}
