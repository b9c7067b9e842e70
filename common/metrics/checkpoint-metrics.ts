import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import { TRANSFER_SECONDS } from './buckets.ts';

export const CHECKPOINT_PHASES = ['snapshot', 'upload', 'commit', 'load'] as const;
export const CHECKPOINT_RESULTS = ['ok', 'failed', 'superseded'] as const;

export interface CheckpointMetrics {
  readonly seconds: Histogram<'phase'>;
  /** Unix time, seconds: age = time() − this. */
  readonly lastSuccessTimestamp: Gauge;
  readonly lastStep: Gauge;
  readonly bytes: Gauge;
  readonly total: Counter<'result'>;
  readonly verifyFailures: Counter;
}

export function createCheckpointMetrics(registry: Registry): CheckpointMetrics {
  const registers = [registry];
  return {
    seconds: new Histogram({
      name: 'covey_checkpoint_duration_seconds',
      help: 'Duration of the phases of a checkpoint',
      labelNames: ['phase'],
      buckets: TRANSFER_SECONDS,
      registers,
    }),
    lastSuccessTimestamp: new Gauge({
      name: 'covey_checkpoint_last_success_timestamp_seconds',
      help: 'Unix time of the newest complete checkpoint',
      registers,
    }),
    lastStep: new Gauge({
      name: 'covey_checkpoint_last_step',
      help: 'Step of the newest complete checkpoint',
      registers,
    }),
    bytes: new Gauge({ name: 'covey_checkpoint_bytes', help: 'Size of the newest complete checkpoint', registers }),
    total: new Counter({
      name: 'covey_checkpoint_total',
      help: 'Checkpoints by result',
      labelNames: ['result'],
      registers,
    }),
    verifyFailures: new Counter({
      name: 'covey_checkpoint_verify_failures_total',
      help: 'Blobs or manifests whose hash was wrong',
      registers,
    }),
  };
}
