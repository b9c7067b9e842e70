import { createHash } from 'node:crypto';
import type { Clock } from '../../common/clock.ts';
import { CoveyError, throwIfAborted } from '../../common/errors.ts';
import type { ObjectStore } from '../../common/objectstore/object-store.ts';
import { RNG_VERSION } from '../../common/random.ts';
import { type HostTensor, writeSafetensors } from '../../models/formats/safetensors.ts';
import { BUFFERS, type StateView } from '../train/state-layout.ts';
import { blobKey, type CheckpointManifest, manifestKey } from './checkpoint-format.ts';

export interface CheckpointFacts {
  readonly run: string;
  readonly generation: number;
  readonly seed: number;
  readonly configSha256: string;
  readonly datasetSha256: string;
  readonly parameters: readonly NamedShape[];
  /** Default none. */
  readonly buffers?: readonly NamedShape[];
}

interface NamedShape {
  readonly name: string;
  readonly shape: readonly number[];
}

export interface WrittenCheckpoint {
  readonly step: number;
  readonly manifestKey: string;
  readonly manifestSha256: string;
  readonly bytes: number;
}

/**
 * Stores a snapshot: blobs, a check that each arrived whole, then the manifest (never overwritten). Does not move HEAD: that is
 * the coordinator's. `state` must not change until it resolves. Killed anywhere, it leaves at most unreferenced blobs.
 */
export async function writeCheckpoint(
  state: StateView,
  facts: CheckpointFacts,
  modules: { readonly store: ObjectStore; readonly clock: Clock },
  signal?: AbortSignal,
): Promise<WrittenCheckpoint> {
  const header = state.readHeader();
  const blobs: Record<string, string> = {};
  const blobBytes: Record<string, number> = {};
  let bytes = 0;
  for (const name of state.layout.stateSections) {
    throwIfAborted(signal);
    const shapes = name === BUFFERS ? (facts.buffers ?? []) : facts.parameters;
    const body = writeSafetensors(namedTensors(shapes, state.section(name)), { covey: name });
    const hash = createHash('sha256').update(body).digest('hex');
    await storeBlob(modules.store, blobKey(facts.run, hash), body, signal);
    blobs[name] = hash;
    blobBytes[name] = body.byteLength;
    bytes += body.byteLength;
  }
  const manifest: CheckpointManifest = {
    version: 1,
    run: facts.run,
    step: header.step,
    generation: facts.generation,
    optimizerStep: header.optimizerStep,
    skippedSteps: header.skippedSteps,
    rngVersion: RNG_VERSION,
    seed: facts.seed,
    configSha256: facts.configSha256,
    datasetSha256: facts.datasetSha256,
    parameters: plainShapes(facts.parameters),
    ...(facts.buffers?.length ? { buffers: plainShapes(facts.buffers) } : {}),
    blobs: blobs as CheckpointManifest['blobs'],
    blobBytes: blobBytes as CheckpointManifest['blobBytes'],
    createdAt: new Date(modules.clock.now()).toISOString(),
  };
  const key = manifestKey(facts.run, header.step, facts.generation);
  return { step: header.step, bytes, ...(await storeManifest(modules.store, key, manifest, signal)) };
}

function plainShapes(shapes: readonly NamedShape[]): { name: string; shape: number[] }[] {
  return shapes.map(({ name, shape }) => ({ name, shape: [...shape] }));
}

function namedTensors(parameters: readonly NamedShape[], flat: Float32Array): Map<string, HostTensor> {
  const tensors = new Map<string, HostTensor>();
  let offset = 0;
  for (const { name, shape } of parameters) {
    const length = shape.reduce((product, side) => product * side, 1);
    tensors.set(name, { shape, values: flat.subarray(offset, offset + length) });
    offset += length;
  }
  return tensors;
}

async function storeBlob(store: ObjectStore, key: string, body: Uint8Array, signal?: AbortSignal): Promise<void> {
  const options = signal ? { signal } : {};
  // Content-addressed: what is there with the right size is the same blob.
  const present = await store.head(key, options);
  if (present?.sizeBytes === body.byteLength) return;
  await store.put(key, body, options);
  const stored = await store.head(key, options);
  if (stored?.sizeBytes !== body.byteLength) {
    throw new CoveyError(
      'DATA_CORRUPT',
      `Cannot trust the stored blob ${key}: ${stored?.sizeBytes} bytes arrived of ${body.byteLength}`,
    );
  }
}

async function storeManifest(store: ObjectStore, key: string, manifest: CheckpointManifest, signal?: AbortSignal) {
  const options = signal ? { signal } : {};
  const body = Buffer.from(`${JSON.stringify(manifest, null, 2)}\n`);
  const named = (content: Uint8Array) => ({
    manifestKey: key,
    manifestSha256: createHash('sha256').update(content).digest('hex'),
  });
  try {
    await store.put(key, body, { ...options, ifAbsent: true });
    return named(body);
  } catch (thrown) {
    if (!CoveyError.is(thrown, 'PRECONDITION_FAILED')) throw thrown;
    // An earlier try of this very generation got this far: the manifest that is there stands.
    return named((await store.get(key, options)).bytes);
  }
}
