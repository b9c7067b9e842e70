import { createHash } from 'node:crypto';
import { type RunConfig, runConfigSchema } from '../../common/config/run-config.ts';
import type { ObjectStore } from '../../common/objectstore/object-store.ts';
import { RNG_VERSION } from '../../common/random.ts';
import { type HostTensor, writeSafetensors } from '../../models/formats/safetensors.ts';
import { blobKey, type CheckpointManifest, manifestKey } from '../../worker/checkpoint/checkpoint-format.ts';

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

/** Puts a run with one checkpoint into a store, as a finished one lies there. */
export async function putStoredRun(
  store: ObjectStore,
  given: Record<string, unknown>,
  { step, tensors }: { readonly step: number; readonly tensors: ReadonlyMap<string, HostTensor> },
): Promise<RunConfig> {
  const config = runConfigSchema.parse({ store: store.url, ...given });
  const { run, seed } = config;
  const text = new TextEncoder().encode(JSON.stringify(config));
  await store.put(`runs/${run}/config.json`, text);
  const weights = writeSafetensors(tensors);
  await store.put(blobKey(run, sha256(weights)), weights);
  const manifest: CheckpointManifest = {
    version: 1,
    run,
    step,
    generation: 1,
    optimizerStep: step,
    skippedSteps: 0,
    rngVersion: RNG_VERSION,
    seed,
    configSha256: sha256(text),
    datasetSha256: sha256(new TextEncoder().encode('no data')),
    parameters: [...tensors].map(([name, { shape }]) => ({ name, shape: [...shape] })),
    blobs: { weights: sha256(weights) },
    blobBytes: { weights: weights.byteLength },
    createdAt: '2026-01-02T03:04:05.000Z',
  };
  await store.put(manifestKey(run, step, 1), new TextEncoder().encode(JSON.stringify(manifest)));
  return config;
}
