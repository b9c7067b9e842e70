import type { GroupMember } from '../collectives/collectives.ts';

/** What the coordinator wants of this worker now; see Assignment in worker_service.proto. */
export type Phase = 'QUIESCE' | 'HEAL' | 'RUN' | 'CHECKPOINT_AND_LEAVE' | 'LEAVE';

export interface AssignmentCheckpoint {
  readonly manifestKey: string;
  readonly manifestSha256: string;
  readonly step: number;
}

export interface Assignment {
  readonly generation: number;
  readonly phase: Phase;
  /** In rank order. */
  readonly members: readonly GroupMember[];
  /** Updates applied before the generation's first step. Meaningful from HEAL on. */
  readonly startStep: number;
  readonly healSources: readonly string[];
  readonly checkpoint: AssignmentCheckpoint | undefined;
  readonly reason: string;
}

export type MemberState = 'LOADING' | 'JOINED' | 'QUIESCED' | 'READY' | 'STEPPING' | 'DRAINING';
