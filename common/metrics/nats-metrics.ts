import { Counter, Histogram, type Registry } from 'prom-client';
import { STEP_SECONDS } from './buckets.ts';

export const NATS_KINDS = ['all'] as const;
export const COLLECTIVE_OPS = ['all_gather', 'all_reduce', 'broadcast', 'barrier', 'state'] as const;

/** What the tensor plane counts. */
export interface NatsMetrics {
  readonly bytes: Counter<'direction' | 'kind'>;
  readonly gaps: Counter;
  readonly retransmits: Counter;
  readonly disconnects: Counter;
  readonly creditWaitSeconds: Counter;
  readonly crcErrors: Counter;
  readonly staleFrames: Counter;
  readonly collectiveSeconds: Histogram<'op'>;
}

export function createNatsMetrics(registry: Registry): NatsMetrics {
  const registers = [registry];
  return {
    bytes: new Counter({
      name: 'covey_nats_bytes_total',
      help: 'Tensor bytes over NATS',
      labelNames: ['direction', 'kind'],
      registers,
    }),
    gaps: new Counter({
      name: 'covey_nats_gaps_total',
      help: 'Chunks that were missing and asked for again',
      registers,
    }),
    retransmits: new Counter({ name: 'covey_nats_retransmits_total', help: 'Chunks sent again', registers }),
    disconnects: new Counter({
      name: 'covey_nats_disconnects_total',
      help: 'Times the connection was lost',
      registers,
    }),
    creditWaitSeconds: new Counter({
      name: 'covey_nats_credit_wait_seconds_total',
      help: 'Time senders waited for receivers',
      registers,
    }),
    crcErrors: new Counter({
      name: 'covey_nats_crc_errors_total',
      help: 'Chunks refused because of a wrong checksum',
      registers,
    }),
    staleFrames: new Counter({
      name: 'covey_nats_stale_frames_total',
      help: 'Frames of an earlier generation that were refused',
      registers,
    }),
    collectiveSeconds: new Histogram({
      name: 'covey_collective_duration_seconds',
      help: 'Duration of collectives',
      labelNames: ['op'],
      buckets: STEP_SECONDS,
      registers,
    }),
  };
}
