import type { ModelConfig, RunConfig } from '../../common/config/run-config.ts';
import type { ErrorRecord } from '../../common/error-record.ts';
import type { ComputeEnd } from '../collectives/sync-collectives.ts';
import type { StepResult } from './lane-trainer.ts';

/** Messages between a worker's main thread and its compute thread. Tensors stay in shared memory; these are only pointers to it. */

export interface ComputeSetup {
  readonly config: RunConfig;
  readonly model: ModelConfig;
  readonly threads: number;
  /** This thread's end of the comms thread; undefined: a world of one without a network. */
  readonly collectives: ComputeEnd | undefined;
  /** Int32 words shared with the main thread, indexed by the CONTROL_ constants. */
  readonly control: Int32Array;
}

/** Control word: steps of any other epoch are dropped unread. The main thread raises it to abandon what is queued. */
export const CONTROL_EPOCH = 0;
export const CONTROL_WORDS = 4;

export interface LaneSlot {
  readonly lane: number;
  readonly pixels: Uint8Array;
  readonly tokens: Int32Array;
}

export type ComputeRequest =
  | { readonly kind: 'initialise' }
  | { readonly kind: 'holdLanes'; readonly begin: number; readonly end: number }
  | {
      readonly kind: 'step';
      readonly epoch: number;
      readonly generation: number;
      readonly step: number;
      readonly lanes: readonly LaneSlot[];
    }
  | { readonly kind: 'exportState'; readonly buffer: SharedArrayBuffer; readonly step: number }
  | { readonly kind: 'importState'; readonly buffer: SharedArrayBuffer }
  | { readonly kind: 'digest' }
  | { readonly kind: 'close' };

export interface StepReply extends StepResult {
  readonly weightsDigest: string;
  readonly learningRate: number;
  readonly stepSeconds: number;
  readonly engineMemory: { readonly tensors: number; readonly bytes: number };
}

export interface ComputeReady {
  readonly engine: string;
  readonly description: string;
  readonly parameterFloats: number;
  readonly parameters: readonly { readonly name: string; readonly shape: readonly number[] }[];
  /** Of the weights drawn from the seed. */
  readonly weightsDigest: string;
}

export interface ComputeReplies {
  initialise: ComputeReady;
  holdLanes: null;
  step: StepReply;
  exportState: null;
  importState: { readonly step: number; readonly weightsDigest: string };
  digest: string;
  close: null;
}

export type ComputeAnswer =
  | { readonly id: number; readonly ok: true; readonly value: unknown }
  | { readonly id: number; readonly ok: false; readonly error: ErrorRecord };
