import { Counter, Histogram, type Registry } from 'prom-client';
import { TRANSFER_SECONDS } from './buckets.ts';

/** What an S3 store counts: every attempt, not only every call. All label values come from fixed lists. */
export interface StoreMetrics {
  /** Attempts by operation and HTTP status (`timeout`, `error` where there was none). */
  readonly requests: Counter<'op' | 'code'>;
  readonly requestSeconds: Histogram<'op'>;
  readonly retries: Counter<'op' | 'reason'>;
  readonly bytes: Counter<'direction'>;
}

export function createStoreMetrics(registry: Registry): StoreMetrics {
  const registers = [registry];
  return {
    requests: new Counter({
      name: 'covey_s3_requests_total',
      help: 'Attempts against the object store, by operation and HTTP status',
      labelNames: ['op', 'code'],
      registers,
    }),
    requestSeconds: new Histogram({
      name: 'covey_s3_request_duration_seconds',
      help: 'Duration of one attempt, body included',
      labelNames: ['op'],
      buckets: TRANSFER_SECONDS,
      registers,
    }),
    retries: new Counter({
      name: 'covey_s3_retries_total',
      help: 'Attempts that were repeated, by operation and reason',
      labelNames: ['op', 'reason'],
      registers,
    }),
    bytes: new Counter({
      name: 'covey_s3_bytes_total',
      help: 'Body bytes moved: in = read from the store, out = written to it',
      labelNames: ['direction'],
      registers,
    }),
  };
}
