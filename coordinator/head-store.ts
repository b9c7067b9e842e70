import { createHash } from 'node:crypto';
import { z } from 'zod';
import type { Clock } from '../common/clock.ts';
import { CoveyError } from '../common/errors.ts';
import type { ObjectStore } from '../common/objectstore/object-store.ts';
import type { HeadContent } from './core/types.ts';

/** Deadline of one HEAD request; the driver repeats what failed for a passing reason. */
const HEAD_TIMEOUT_MS = 10_000;
const FORMAT_VERSION = 1;

const count = z.int().min(0);
const leaseSchema = z.object({
  memberId: z.string(),
  slot: count,
  rank: count,
  laneBegin: count,
  laneEnd: count,
  host: z.string(),
  pid: count,
  weight: z.number(),
  incarnation: z.string(),
});
const checkpointSchema = z.object({
  step: count,
  generation: count,
  manifestKey: z.string(),
  manifestSha256: z.string(),
  bytes: count,
  createdAtSeconds: z.number(),
});
const headSchema = z.object({
  format: z.literal(FORMAT_VERSION),
  /** Counts the writes of this object. */
  version: count,
  run: z.string(),
  coordinatorId: z.string(),
  configSha256: z.string(),
  createdAtSeconds: z.number(),
  updatedAtSeconds: z.number(),
  generation: count,
  step: count,
  startStep: count,
  leases: z.array(leaseSchema),
  healSources: z.array(z.string()),
  checkpoints: z.array(checkpointSchema),
  state: z.enum(['active', 'stopping', 'finishing', 'stopped', 'finished', 'failed']),
  reason: z.string(),
});

/** `runs/<run>/HEAD`: what the core asked for, and who wrote it when. */
export type HeadRecord = z.infer<typeof headSchema>;

export function headKey(run: string): string {
  return `runs/${run}/HEAD`;
}

export function configKey(run: string): string {
  return `runs/${run}/config.json`;
}

export function sha256Hex(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

export interface HeadStoreOptions {
  readonly run: string;
  /** Unique per coordinator process. */
  readonly coordinatorId: string;
}

export interface HeadStoreModules {
  readonly store: ObjectStore;
  readonly clock: Clock;
}

/** The one object that is the truth about a run, changed only by compare-and-swap. Not for concurrent writes by one caller. */
export class HeadStore {
  readonly #options: HeadStoreOptions;
  readonly #modules: HeadStoreModules;
  #known: { readonly record: HeadRecord; readonly etag: string } | null = null;

  constructor(options: HeadStoreOptions, modules: HeadStoreModules) {
    this.#options = options;
    this.#modules = modules;
  }

  /** HEAD as last read or written here. */
  get known(): HeadRecord | null {
    return this.#known?.record ?? null;
  }

  /** Reads HEAD; null where the run does not exist. DATA_CORRUPT where it is not a HEAD. */
  async read(signal?: AbortSignal): Promise<HeadRecord | null> {
    const key = headKey(this.#options.run);
    try {
      const { bytes, etag } = await this.#modules.store.get(key, callOptions(signal));
      this.#known = { record: parseHead(bytes, `${this.#modules.store.url}/${key}`), etag };
    } catch (thrown) {
      if (!CoveyError.is(thrown, 'NOT_FOUND')) throw thrown;
      this.#known = null;
    }
    return this.known;
  }

  /** True where another hand wrote HEAD since it was last read or written here. One cheap request. */
  async moved(signal?: AbortSignal): Promise<boolean> {
    const found = await this.#modules.store.head(headKey(this.#options.run), callOptions(signal));
    return found?.etag !== this.#known?.etag;
  }

  /** The first HEAD of a run. ALREADY_EXISTS where there is one: read it. */
  async create(content: HeadContent, configSha256: string, signal?: AbortSignal): Promise<HeadRecord> {
    const nowSeconds = this.#modules.clock.now() / 1000;
    const record = this.#record(content, { version: 1, configSha256, createdAtSeconds: nowSeconds });
    try {
      await this.#put(record, { ifAbsent: true }, signal);
    } catch (thrown) {
      if (!CoveyError.is(thrown, 'PRECONDITION_FAILED')) throw thrown;
      throw new CoveyError('ALREADY_EXISTS', `Cannot create run ${this.#options.run}: it has a HEAD`, {
        cause: thrown,
      });
    }
    return record;
  }

  /**
   * Replaces HEAD if nobody else did since it was last read or written here. Resolves once the write is durable; rejects with
   * PRECONDITION_FAILED (fields.by: the coordinator that advanced it) where the race was lost, and with the store's own errors
   * where nothing is known: then call again with the same content.
   */
  async write(content: HeadContent, signal?: AbortSignal): Promise<HeadRecord> {
    const known = this.#known;
    if (known === null) throw new CoveyError('INTERNAL', `Cannot write HEAD of ${this.#options.run}: it was not read`);
    const { configSha256, createdAtSeconds } = known.record;
    const record = this.#record(content, { version: known.record.version + 1, configSha256, createdAtSeconds });
    try {
      await this.#put(record, { ifMatch: known.etag }, signal);
      return record;
    } catch (thrown) {
      if (!CoveyError.is(thrown, 'PRECONDITION_FAILED')) throw thrown;
      const found = await this.read(signal);
      // An earlier attempt of this very write may have succeeded with its answer lost.
      if (found?.coordinatorId === this.#options.coordinatorId && found.version === record.version) return found;
      const by = found?.coordinatorId ?? 'whoever deleted it';
      const message = `Cannot advance run ${this.#options.run}: HEAD was moved by ${by}; another coordinator serves the run`;
      throw new CoveyError('PRECONDITION_FAILED', message, { cause: thrown, fields: { run: this.#options.run, by } });
    }
  }

  #record(content: HeadContent, own: Pick<HeadRecord, 'version' | 'configSha256' | 'createdAtSeconds'>): HeadRecord {
    const { run, coordinatorId } = this.#options;
    const updatedAtSeconds = this.#modules.clock.now() / 1000;
    const { leases, healSources, checkpoints } = content;
    const copied = { leases: [...leases], healSources: [...healSources], checkpoints: [...checkpoints] };
    return { format: FORMAT_VERSION, run, coordinatorId, updatedAtSeconds, ...own, ...content, ...copied };
  }

  async #put(
    record: HeadRecord,
    condition: { ifAbsent: true } | { ifMatch: string },
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const body = Buffer.from(`${JSON.stringify(record, null, 2)}\n`);
    const { etag } = await this.#modules.store.put(headKey(this.#options.run), body, {
      ...condition,
      ...callOptions(signal),
    });
    this.#known = { record, etag };
  }
}

function callOptions(signal: AbortSignal | undefined): { timeoutMs: number; signal?: AbortSignal } {
  return { timeoutMs: HEAD_TIMEOUT_MS, ...(signal ? { signal } : {}) };
}

function parseHead(bytes: Uint8Array, where: string): HeadRecord {
  try {
    return headSchema.parse(JSON.parse(Buffer.from(bytes).toString('utf8')));
  } catch (thrown) {
    const problem = thrown instanceof Error ? thrown.message : String(thrown);
    throw new CoveyError(
      'DATA_CORRUPT',
      `Cannot read ${where}: it is not a HEAD of this version of covey: ${problem}`,
      { cause: thrown },
    );
  }
}
