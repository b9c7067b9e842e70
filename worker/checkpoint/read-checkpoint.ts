import { createHash } from 'node:crypto';
import { CoveyError } from '../../common/errors.ts';
import type { ObjectStore } from '../../common/objectstore/object-store.ts';
import { RNG_VERSION } from '../../common/random.ts';
import { type HostTensor, readSafetensors } from '../../models/formats/safetensors.ts';
import { BUFFERS, EMA, type StateView, WEIGHTS } from '../train/state-layout.ts';
import { blobKey, type CheckpointManifest, checkpointManifestSchema, type WeightKind } from './checkpoint-format.ts';

function corrupt(what: string, fields: Record<string, unknown>): CoveyError {
  return new CoveyError('DATA_CORRUPT', `Cannot use the checkpoint: ${what}; see \`covey ckpt verify\``, { fields });
}

/** Reads a manifest; with `sha256` given, its bytes must hash to it. */
export async function readManifest(
  store: ObjectStore,
  key: string,
  options: { readonly sha256?: string; readonly signal?: AbortSignal } = {},
): Promise<CheckpointManifest> {
  const { bytes } = await store.get(key, options.signal ? { signal: options.signal } : {});
  const hash = createHash('sha256').update(bytes).digest('hex');
  if (options.sha256 && hash !== options.sha256) {
    throw corrupt(`manifest ${key} hashes to ${hash}, expected ${options.sha256}`, {
      key,
      hash,
      expected: options.sha256,
    });
  }
  let parsed: unknown;
  try {
    parsed = JSON.parse(Buffer.from(bytes).toString('utf8'));
  } catch (cause) {
    throw new CoveyError('DATA_CORRUPT', `Cannot use the checkpoint: manifest ${key} is not JSON`, { cause });
  }
  const manifest = checkpointManifestSchema.safeParse(parsed);
  if (!manifest.success) throw corrupt(`manifest ${key} has the wrong form: ${manifest.error.message}`, { key });
  return manifest.data;
}

/** One blob's bytes, verified against its hash. */
export async function readBlob(
  store: ObjectStore,
  manifest: CheckpointManifest,
  name: string,
  signal?: AbortSignal,
): Promise<Uint8Array> {
  const expected = manifest.blobs[name];
  if (expected === undefined) throw corrupt(`it has no ${name}`, { name, blobs: Object.keys(manifest.blobs) });
  const key = blobKey(manifest.run, expected);
  const { bytes } = await store.get(key, signal ? { signal } : {});
  const hash = createHash('sha256').update(bytes).digest('hex');
  if (hash !== expected) throw corrupt(`blob ${key} (${name}) hashes to ${hash}`, { key, hash, expected });
  return bytes;
}

/** What no gradient changes, by name: running statistics and the like; empty where the model has none. Verified. */
export async function readBuffers(
  store: ObjectStore,
  manifest: CheckpointManifest,
  signal?: AbortSignal,
): Promise<ReadonlyMap<string, HostTensor>> {
  if (manifest.blobs[BUFFERS] === undefined) return new Map();
  return readSafetensors(await readBlob(store, manifest, BUFFERS, signal)).tensors;
}

/** The weights and the buffers (running statistics), by name, for evaluation and export. Verified. @throws NOT_FOUND where the run kept no average */
export async function readWeights(
  store: ObjectStore,
  manifest: CheckpointManifest,
  kind: WeightKind,
  signal?: AbortSignal,
): Promise<ReadonlyMap<string, HostTensor>> {
  if (kind === 'ema' && manifest.blobs[EMA] === undefined) {
    throw new CoveyError(
      'NOT_FOUND',
      `Cannot use averaged weights: run ${manifest.run} was trained without train.ema; use --weights last`,
    );
  }
  const { tensors } = readSafetensors(await readBlob(store, manifest, kind === 'ema' ? EMA : WEIGHTS, signal));
  return new Map([...tensors, ...(await readBuffers(store, manifest, signal))]);
}

/** Fills `state` from a checkpoint of the same model. Throws DATA_CORRUPT on any mismatch; `state` is then unusable. */
export async function readCheckpointInto(
  state: StateView,
  manifest: CheckpointManifest,
  store: ObjectStore,
  signal?: AbortSignal,
): Promise<void> {
  if (manifest.rngVersion !== RNG_VERSION) {
    throw new CoveyError(
      'UNSUPPORTED',
      `Cannot resume: the checkpoint's randomness is version ${manifest.rngVersion}, this covey has ${RNG_VERSION}`,
    );
  }
  const stored = Object.keys(manifest.blobs);
  const needed = state.layout.stateSections;
  if (stored.length !== needed.length || needed.some((name) => !stored.includes(name))) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot resume: the checkpoint holds ${stored.join(', ')}, this optimiser needs ${needed.join(', ')}`,
    );
  }
  for (const name of needed) {
    const { tensors } = readSafetensors(await readBlob(store, manifest, name, signal));
    const flat = state.section(name);
    let offset = 0;
    for (const parameter of name === BUFFERS ? (manifest.buffers ?? []) : manifest.parameters) {
      const tensor = tensors.get(parameter.name);
      if (!tensor || offset + tensor.values.length > flat.length)
        throw corrupt(`${name} lacks ${parameter.name}`, { parameter: parameter.name });
      flat.set(tensor.values, offset);
      offset += tensor.values.length;
    }
    if (offset !== flat.length)
      throw corrupt(`${name} has ${offset} values, this model ${flat.length}`, { offset, expected: flat.length });
  }
  state.writeHeader({
    step: manifest.step,
    optimizerStep: manifest.optimizerStep,
    skippedSteps: manifest.skippedSteps,
  });
}
