import type { MessagePort } from 'node:worker_threads';
import type { ErrorRecord } from '../../common/error-record.ts';
import type { LogOptions } from '../../common/log.ts';
import type { CollectiveStats } from './collective-stats.ts';
import type { Group } from './collectives.ts';
import type { NatsCollectivesOptions } from './nats/nats-collectives.ts';

/** Messages between a worker's threads and its comms thread. Tensors are views on shared memory; nothing is copied. */

export interface CommsSetup {
  readonly natsUrl: string;
  readonly name: string;
  readonly collectives: NatsCollectivesOptions;
  readonly log: LogOptions;
  readonly computePort: MessagePort;
  /** One word per ticket: see the TICKET_ constants. */
  readonly words: Int32Array;
}

/** From the main thread. */
export type CommsRequest =
  | { readonly kind: 'configure'; readonly group: Group; readonly timeoutMs: number | undefined }
  | { readonly kind: 'abort'; readonly reason: string }
  | { readonly kind: 'serveState'; readonly state: Uint8Array }
  | {
      readonly kind: 'fetchState';
      readonly memberId: string;
      readonly into: Uint8Array;
      readonly timeoutMs: number | undefined;
    }
  | { readonly kind: 'stats' }
  | { readonly kind: 'close' };

export interface CommsReplies {
  configure: null;
  abort: null;
  serveState: null;
  fetchState: null;
  stats: CollectiveStats;
  close: null;
}

export type CommsAnswer =
  | { readonly id: number; readonly value: unknown }
  | { readonly id: number; readonly error: ErrorRecord };

/** From the compute thread. `ticket` is the index of the status word that says when it is done. */
export type ComputeCall = { readonly ticket: number; readonly generation: number; readonly op: number } & (
  | { readonly kind: 'allGather'; readonly laneBytes: number; readonly out: Uint8Array }
  | { readonly kind: 'treeAllReduce'; readonly partials: readonly Float32Array[]; readonly out: Float32Array }
);

/** Follows a word that says TICKET_FAILED. */
export interface TicketFailure {
  readonly ticket: number;
  readonly error: ErrorRecord;
}

export const TICKET_FREE = 0;
export const TICKET_PENDING = 1;
export const TICKET_DONE = 2;
/** The error lies in the port. */
export const TICKET_FAILED = 3;
/** The comms thread died; there is no message. */
export const TICKET_LOST = 4;
export const TICKET_COUNT = 1024;
