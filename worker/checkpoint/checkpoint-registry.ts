import type { Clock } from '../../common/clock.ts';
import { CoveyError } from '../../common/errors.ts';
import type { ObjectStore } from '../../common/objectstore/object-store.ts';
import { blobKey, type CheckpointManifest, checkpointPrefix } from './checkpoint-format.ts';
import { readBlob, readManifest } from './read-checkpoint.ts';

export interface ListedCheckpoint {
  readonly manifestKey: string;
  readonly step: number;
  readonly generation: number;
  readonly createdAtMs: number;
}

const MANIFEST_PATTERN = /\/step-(\d+)-g(\d+)\/manifest\.json$/;

/** All checkpoints of a run that have a manifest, oldest first. */
export async function listCheckpoints(
  store: ObjectStore,
  run: string,
  signal?: AbortSignal,
): Promise<ListedCheckpoint[]> {
  const found: ListedCheckpoint[] = [];
  for await (const object of store.list(`${checkpointPrefix(run)}step-`, signal ? { signal } : {})) {
    const match = MANIFEST_PATTERN.exec(object.key);
    if (!match) continue;
    found.push({
      manifestKey: object.key,
      step: Number(match[1]),
      generation: Number(match[2]),
      createdAtMs: object.modifiedAtMs,
    });
  }
  return found.sort((a, b) => a.step - b.step || a.generation - b.generation);
}

export interface VerifiedCheckpoint extends ListedCheckpoint {
  readonly ok: boolean;
  readonly problem: string | undefined;
  readonly bytes: number;
}

/** Reads every byte of a checkpoint and compares the hashes. Never throws for a broken checkpoint: says what is wrong. */
export async function verifyCheckpoint(
  store: ObjectStore,
  listed: ListedCheckpoint,
  signal?: AbortSignal,
): Promise<VerifiedCheckpoint> {
  let bytes = 0;
  try {
    const manifest = await readManifest(store, listed.manifestKey, signal ? { signal } : {});
    for (const name of Object.keys(manifest.blobs)) bytes += (await readBlob(store, manifest, name, signal)).byteLength;
    return { ...listed, ok: true, problem: undefined, bytes };
  } catch (thrown) {
    const error = CoveyError.from(thrown);
    if (!CoveyError.is(error, 'DATA_CORRUPT', 'NOT_FOUND')) throw error;
    return { ...listed, ok: false, problem: error.message, bytes };
  }
}

/** The newest checkpoint that verifies, or undefined: what a reader falls back to where HEAD's own is broken. */
export async function newestVerified(
  store: ObjectStore,
  run: string,
  signal?: AbortSignal,
): Promise<VerifiedCheckpoint | undefined> {
  for (const listed of (await listCheckpoints(store, run, signal)).reverse()) {
    const verified = await verifyCheckpoint(store, listed, signal);
    if (verified.ok) return verified;
  }
  return undefined;
}

export interface PruneOptions {
  readonly keepLast: number;
  /** Never removed: HEAD's. */
  readonly protectedKeys: readonly string[];
  /** Unreferenced blobs younger than this may belong to a checkpoint in the making. */
  readonly blobGraceMs: number;
  readonly dryRun?: boolean;
}

export interface PruneReport {
  readonly removedCheckpoints: readonly string[];
  readonly removedBlobs: readonly string[];
  readonly freedBytes: number;
}

/**
 * Keeps the last k checkpoints and the protected ones; removes the older manifests, then the blobs nobody names (mark and sweep).
 * Manifests go first: a reader may miss a checkpoint, never find half of one.
 */
export async function pruneCheckpoints(
  modules: { readonly store: ObjectStore; readonly clock: Clock },
  run: string,
  options: PruneOptions,
  signal?: AbortSignal,
): Promise<PruneReport> {
  const { store, clock } = modules;
  const call = signal ? { signal } : {};
  const all = await listCheckpoints(store, run, signal);
  const kept = all.slice(Math.max(0, all.length - Math.max(1, options.keepLast)));
  const removed = all.filter((one) => !kept.includes(one) && !options.protectedKeys.includes(one.manifestKey));
  const referenced = new Set<string>();
  for (const one of all) {
    if (removed.includes(one)) continue;
    for (const hash of Object.values((await readManifestOrEmpty(store, one.manifestKey, signal))?.blobs ?? {}))
      referenced.add(hash);
  }
  const removedBlobs: string[] = [];
  let freedBytes = 0;
  if (!options.dryRun) for (const one of removed) await store.delete(one.manifestKey, call);
  const prefix = blobKey(run, '');
  for await (const object of store.list(prefix, call)) {
    const young = clock.now() - object.modifiedAtMs < options.blobGraceMs;
    if (referenced.has(object.key.slice(prefix.length)) || young) continue;
    removedBlobs.push(object.key);
    freedBytes += object.sizeBytes;
    if (!options.dryRun) await store.delete(object.key, call);
  }
  return { removedCheckpoints: removed.map((one) => one.manifestKey), removedBlobs, freedBytes };
}

/** A manifest that cannot be read protects nothing, but must not stop the pruning of others. */
async function readManifestOrEmpty(
  store: ObjectStore,
  key: string,
  signal?: AbortSignal,
): Promise<CheckpointManifest | undefined> {
  try {
    return await readManifest(store, key, signal ? { signal } : {});
  } catch (thrown) {
    if (CoveyError.is(thrown, 'DATA_CORRUPT', 'NOT_FOUND')) return undefined;
    throw thrown;
  }
}
