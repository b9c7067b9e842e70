import type { ErrorCode } from '../../common/errors.ts';

/**
 * What the core decides about: one run. Everything here is plain data. Times are milliseconds on the caller's clock; steps count
 * applied updates (0 = none).
 */

export interface RunSettings {
  readonly run: string;
  readonly totalSteps: number;
  readonly laneCount: number;
  readonly workersMin: number;
  readonly workersExpected: number;
  readonly joinWaitMs: number;
  readonly leaseTtlMs: number;
  /** Joins (and suspicions) within this time make one new generation, not several. */
  readonly joinCoalesceMs: number;
  /** A member that heartbeats but does not stop stepping within this time is evicted. */
  readonly quiesceTimeoutMs: number;
  /** The same for getting the start step's weights. */
  readonly healTimeoutMs: number;
  /** The same for writing the last checkpoint. */
  readonly checkpointTimeoutMs: number;
  /** Checkpoints HEAD remembers. */
  readonly checkpointsKept: number;
}

export type MemberPhase = 'loading' | 'joined' | 'quiesced' | 'ready' | 'stepping' | 'draining';

/** A worker with a lease. */
export interface MemberRecord {
  readonly memberId: string;
  /** Lowest number free when it joined. */
  readonly slot: number;
  readonly incarnation: string;
  readonly host: string;
  readonly pid: number;
  readonly weight: number;
  readonly phase: MemberPhase;
  /** Once true stays true: it will not take lanes again. */
  readonly draining: boolean;
  /** Told to leave; holds nothing the run needs. */
  readonly dismissed: boolean;
  /** False until the first heartbeat to this coordinator. */
  readonly heard: boolean;
  /** Newest generation the member has acted on. */
  readonly generation: number;
  readonly appliedStep: number;
  readonly hasWeights: boolean;
  readonly weightsDigest: string;
  readonly expiresAtMs: number;
  /** Generations in a row that ended because every other member waited for this one in vain. */
  readonly strikes: number;
}

/** A member's place in a generation. */
export interface LaneLease {
  readonly memberId: string;
  readonly slot: number;
  readonly rank: number;
  readonly laneBegin: number;
  /** Exclusive. */
  readonly laneEnd: number;
  readonly host: string;
  readonly pid: number;
  readonly weight: number;
  readonly incarnation: string;
}

export interface CheckpointRef {
  readonly step: number;
  readonly generation: number;
  readonly manifestKey: string;
  readonly manifestSha256: string;
  readonly bytes: number;
  readonly createdAtSeconds: number;
}

export type AssignmentPhase = 'quiesce' | 'heal' | 'run' | 'checkpoint' | 'leave';

/** What every heartbeat is answered with. Phases other than quiesce exist only once HEAD holds their generation. */
export interface Published {
  readonly generation: number;
  readonly phase: AssignmentPhase;
  readonly leases: readonly LaneLease[];
  readonly startStep: number;
  readonly healSources: readonly string[];
  readonly checkpoint: CheckpointRef | null;
  readonly reason: string;
}

/** What is wanted of the run. `superseded`: another coordinator advanced HEAD; this one no longer decides. */
export type Lifecycle = 'active' | 'stopping' | 'finishing' | 'stopped' | 'finished' | 'failed' | 'superseded';

/**
 * Where the current generation stands.
 * idle: none, waiting for workers. adopt: restarted, hearing the members that HEAD lists. quiesce: members stop and report.
 * head: its HEAD write is under way. heal, run, checkpoint, leave: as published.
 */
export type CorePhase = 'idle' | 'adopt' | 'quiesce' | 'head' | 'heal' | 'run' | 'checkpoint' | 'leave';

export interface DueGeneration {
  readonly atMs: number;
  readonly reason: string;
  /** A join can wait until the generation being healed runs; a lost or accused member cannot. */
  readonly urgent: boolean;
}

/** What follows once the awaited HEAD write is durable. */
export interface PendingHead {
  readonly sequence: number;
  readonly publish: Published;
}

export interface RunCoreState {
  readonly settings: RunSettings;
  readonly lifecycle: Lifecycle;
  readonly phase: CorePhase;
  /** When the phase began. */
  readonly phaseSinceMs: number;
  /** Generation being formed or in force. Strictly increases. */
  readonly generation: number;
  /** Newest generation HEAD holds: reports of this one are valid, of older ones stale. */
  readonly headGeneration: number;
  readonly previousHeadGeneration: number;
  /** Leases of headGeneration. */
  readonly leases: readonly LaneLease[];
  /** Start step of headGeneration. */
  readonly startStep: number;
  readonly healSources: readonly string[];
  readonly published: Published | null;
  readonly pendingHead: PendingHead | null;
  readonly headSequence: number;
  /** What HEAD says once every write asked for is done. */
  readonly head: HeadContent;
  readonly members: ReadonlyMap<string, MemberRecord>;
  /** Highest step ever committed. Never falls. */
  readonly committedStep: number;
  /** Newest step of the history being trained; at most committedStep, below it while lost steps are computed again. */
  readonly currentStep: number;
  /** step → digest of the weights after it and the generation that said so. The newest DIGESTS_MAX. */
  readonly digests: ReadonlyMap<number, { readonly generation: number; readonly digest: string }>;
  /** Newest step whose weights were evaluated on held-out data, and the generation that said so. */
  readonly evaluated: { readonly step: number; readonly generation: number };
  /** After a restart the first report may be ahead of what HEAD says. */
  readonly gapAllowed: boolean;
  /** Oldest first. */
  readonly checkpoints: readonly CheckpointRef[];
  /** A new generation is due then, for this reason: joins and suspicions are gathered until that time. */
  readonly formAt: DueGeneration | null;
  /** suspect → members of this generation that waited for it in vain. */
  readonly suspicions: ReadonlyMap<string, ReadonlySet<string>>;
  /** When the first member of an empty run joined. */
  readonly waitingSinceMs: number | null;
  /** True once a generation was formed (in any coordinator's life). */
  readonly everFormed: boolean;
  /** Why the run is as it is, in words. */
  readonly reason: string;
}

export interface StepReport {
  readonly step: number;
  readonly digest: string;
}

export type CoreEvent =
  | {
      readonly kind: 'join';
      readonly memberId: string;
      /** Holds its lease but wants no lanes until a heartbeat says so. */
      readonly loading?: boolean;
      readonly incarnation: string;
      readonly host: string;
      readonly pid: number;
      readonly weight: number;
    }
  | {
      readonly kind: 'heartbeat';
      readonly memberId: string;
      readonly generation: number;
      readonly phase: MemberPhase;
      readonly appliedStep: number;
      readonly hasWeights: boolean;
      readonly digest: string;
      readonly suspects: readonly string[];
    }
  | { readonly kind: 'leave'; readonly memberId: string; readonly reason: string }
  | {
      readonly kind: 'commit';
      readonly memberId: string;
      readonly generation: number;
      readonly step: number;
      readonly digest: string;
    }
  | { readonly kind: 'evaluation'; readonly memberId: string; readonly generation: number; readonly step: number }
  | {
      readonly kind: 'checkpoint';
      readonly memberId: string;
      readonly generation: number;
      readonly checkpoint: CheckpointRef;
    }
  | {
      readonly kind: 'failure';
      readonly memberId: string;
      readonly generation: number;
      readonly code: string;
      readonly message: string;
    }
  | { readonly kind: 'stop' }
  | { readonly kind: 'resume' }
  | { readonly kind: 'tick' }
  /** The HEAD write with this sequence is durable. */
  | { readonly kind: 'head-written'; readonly sequence: number }
  /** HEAD was moved by another coordinator. */
  | { readonly kind: 'head-lost'; readonly by: string };

/** What HEAD is to say, but for the writer's own fields. */
export interface HeadContent {
  readonly generation: number;
  /** The newest of the generation's start step and the newest checkpoint's step. */
  readonly step: number;
  readonly startStep: number;
  readonly leases: readonly LaneLease[];
  readonly healSources: readonly string[];
  readonly checkpoints: readonly CheckpointRef[];
  readonly state: 'active' | 'stopping' | 'finishing' | 'stopped' | 'finished' | 'failed';
  readonly reason: string;
}

export type MembershipChange = 'join' | 'leave' | 'dead' | 'drain' | 'evict';

export type CoreEffect =
  /** Write HEAD by compare-and-swap, in order of sequence; answer with head-written or head-lost. */
  | { readonly kind: 'write-head'; readonly sequence: number; readonly head: HeadContent }
  /** `state.published` moved: answer waiting heartbeats. */
  | { readonly kind: 'publish'; readonly published: Published }
  /** Keep and show the step's record. `result` late: for a step already counted as committed. */
  | { readonly kind: 'record-step'; readonly step: number; readonly result: 'committed' | 'recomputed' | 'late' }
  /** Keep and show the evaluation of the weights after this step. */
  | { readonly kind: 'record-evaluation'; readonly step: number }
  /** Steps (from, to] count as committed though no record of them arrived: members hold their result. */
  | { readonly kind: 'adopt-steps'; readonly from: number; readonly to: number }
  | { readonly kind: 'abort-step' }
  | { readonly kind: 'membership'; readonly change: MembershipChange; readonly memberId: string }
  /** A request was refused because its generation is over. */
  | { readonly kind: 'fenced'; readonly what: string }
  | { readonly kind: 'formed'; readonly generation: number; readonly durationMs: number }
  | {
      readonly kind: 'event';
      readonly about: 'generation' | 'member' | 'step' | 'checkpoint' | 'state' | 'warning';
      readonly message: string;
      readonly fields: Readonly<Record<string, string>>;
    };

export interface Refusal {
  readonly code: ErrorCode;
  readonly message: string;
}

export interface Reply {
  /** join: the member, new or known already. */
  readonly memberId?: string;
  /** commit: this member's weights differ from the committed ones. */
  readonly diverged?: boolean;
  /** Answer the caller only once this HEAD write is durable. */
  readonly afterHead?: number;
}

export interface Outcome {
  readonly state: RunCoreState;
  readonly effects: readonly CoreEffect[];
  /** Why, in words: for logs and transcripts. Empty where nothing was decided. */
  readonly reason: string;
  readonly refusal: Refusal | null;
  readonly reply: Reply;
}
