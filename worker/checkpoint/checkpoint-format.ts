import { z } from 'zod';

/**
 * What a checkpoint is: content-addressed blobs, then one manifest that names them with their hashes, then HEAD (moved by the
 * coordinator). A manifest exists only once all its blobs do, so whatever a reader finds is whole or visibly broken.
 */
const sha256 = z.string().regex(/^[0-9a-f]{64}$/);

export const checkpointManifestSchema = z.strictObject({
  version: z.literal(1),
  run: z.string(),
  /** Steps taken: the index of the next one, which is also the data cursor (the plan is a pure function of it). */
  step: z.int().min(0),
  generation: z.int().min(0),
  optimizerStep: z.int().min(0),
  skippedSteps: z.int().min(0),
  rngVersion: z.int(),
  seed: z.int(),
  configSha256: sha256,
  datasetSha256: sha256,
  /** Order and shapes of the flat parameter vector. */
  parameters: z.array(z.strictObject({ name: z.string(), shape: z.array(z.int()) })),
  /** Order and shapes of the section `buffers`; absent where there is none. */
  buffers: z.array(z.strictObject({ name: z.string(), shape: z.array(z.int()) })).optional(),
  /** One per section of the training state: the weights, what the optimiser remembers, the average, the buffers. */
  blobs: z.object({ weights: sha256 }).catchall(sha256),
  blobBytes: z.object({ weights: z.int() }).catchall(z.int()),
  createdAt: z.string(),
});

export type CheckpointManifest = z.infer<typeof checkpointManifestSchema>;

/** Which weights of a checkpoint to evaluate or export: those of its step, or their moving average. */
export const WEIGHT_KINDS = ['last', 'ema'] as const;
export type WeightKind = (typeof WEIGHT_KINDS)[number];

export function checkpointPrefix(run: string): string {
  return `runs/${run}/ckpt/`;
}

/** Zero-padded, so that key order is step order. */
export function manifestKey(run: string, step: number, generation: number): string {
  return manifestKeyOf(run, `step-${String(step).padStart(10, '0')}-g${generation}`);
}

/** @param checkpoint name of its folder, `step-…-g…` */
export function manifestKeyOf(run: string, checkpoint: string): string {
  return `${checkpointPrefix(run)}${checkpoint}/manifest.json`;
}

export function blobKey(run: string, hash: string): string {
  return `${checkpointPrefix(run)}blobs/${hash}`;
}
