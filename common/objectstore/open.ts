import { type Clock, systemClock } from '../clock.ts';
import { CoveyError } from '../errors.ts';
import { type Logger, silentLogger } from '../log.ts';
import type { StoreMetrics } from '../metrics/store-metrics.ts';
import { RandomStream } from '../random.ts';
import { FileStore } from './file-store.ts';
import { type MemoryObjects, MemoryStore } from './memory-store.ts';
import type { ObjectStore } from './object-store.ts';
import { type S3Settings, s3SettingsFromEnv } from './s3-settings.ts';
import { S3Store, type S3StoreOptions } from './s3-store.ts';

export interface OpenStoreOptions {
  /** Where COVEY_S3_* and AWS_* are read. Default: this process's environment. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Replaces what the environment says, field by field. */
  readonly s3?: Partial<S3Settings>;
  /** Limits of an S3 store: sockets, deadlines, attempts. */
  readonly limits?: S3StoreOptions['limits'];
  readonly logger?: Logger;
  readonly metrics?: StoreMetrics;
  readonly clock?: Clock;
  /** Of the back-off's jitter only. */
  readonly random?: Pick<RandomStream, 'uniform'>;
}

const memoryStores = new Map<string, MemoryObjects>();

/**
 * Opens the store that `url` names: `file:///folder`, `s3://bucket/prefix` (endpoint and credentials from COVEY_S3_ENDPOINT,
 * COVEY_S3_ACCESS_KEY, COVEY_S3_SECRET_KEY, COVEY_S3_REGION, else the AWS_* names) or `memory://name` (this process only; the
 * same name is the same store). Nothing is contacted yet. The caller closes it. Throws INVALID_ARGUMENT for any other URL and
 * UNAUTHENTICATED where an s3 URL has no credentials.
 */
export function openObjectStore(url: string, options: OpenStoreOptions = {}): ObjectStore {
  const clock = options.clock ?? systemClock;
  // Jitter must differ between processes, or they all come back at once; nothing else depends on it.
  const random = options.random ?? new RandomStream('object-store', crypto.randomUUID());
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//.exec(url)?.[1];
  switch (scheme) {
    case 'file':
      return new FileStore({ url }, { clock, random });
    case 'memory': {
      const name = url.replace(/\/+$/, '');
      const objects = memoryStores.get(name) ?? new Map();
      memoryStores.set(name, objects);
      return new MemoryStore({ url: name, objects }, { clock });
    }
    case 's3': {
      const settings = s3SettingsFromEnv(options.env ?? process.env, options.s3);
      const modules = { clock, random, logger: options.logger ?? silentLogger };
      return new S3Store(
        { url, settings, ...(options.limits ? { limits: options.limits } : {}) },
        options.metrics ? { ...modules, metrics: options.metrics } : modules,
      );
    }
    default:
      throw new CoveyError(
        'INVALID_ARGUMENT',
        `Cannot open object store: unknown kind of URL: ${url}; use file:///folder or s3://bucket/prefix`,
        { fields: { url } },
      );
  }
}
