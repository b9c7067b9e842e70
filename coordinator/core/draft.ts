import type { ErrorCode } from '../../common/errors.ts';
import type {
  AssignmentPhase,
  CheckpointRef,
  CoreEffect,
  CorePhase,
  HeadContent,
  LaneLease,
  MemberRecord,
  Outcome,
  Published,
  Refusal,
  Reply,
  RunCoreState,
} from './types.ts';

type Mutable<T> = { -readonly [K in keyof T]: T[K] };
interface DraftState extends Omit<Mutable<RunCoreState>, 'members'> {
  readonly members: Map<string, MemberRecord>;
}

/** One transition in the making: a copy of the state that may be changed, and what follows from the change. Records inside the
 * state are replaced, never changed, so the state it was made from stays as it was. */
export class Draft {
  readonly state: DraftState;
  readonly nowMs: number;
  readonly #effects: CoreEffect[] = [];
  readonly #reasons: string[] = [];
  #refusal: Refusal | null = null;
  #reply: Reply = {};

  constructor(state: RunCoreState, nowMs: number) {
    this.state = { ...state, members: new Map(state.members) };
    this.nowMs = nowMs;
  }

  outcome(): Outcome {
    return {
      state: this.state,
      effects: this.#effects,
      reason: this.#reasons.join('; '),
      refusal: this.#refusal,
      reply: this.#reply,
    };
  }

  because(reason: string) {
    this.#reasons.push(reason);
  }

  emit(effect: CoreEffect) {
    this.#effects.push(effect);
  }

  event(
    about: Extract<CoreEffect, { kind: 'event' }>['about'],
    message: string,
    fields: Readonly<Record<string, string>> = {},
  ) {
    this.emit({ kind: 'event', about, message, fields });
  }

  refuse(code: ErrorCode, message: string) {
    this.#refusal = { code, message };
    this.because(`refused: ${message}`);
  }

  reply(reply: Reply) {
    this.#reply = { ...this.#reply, ...reply };
  }

  get checkpoint(): CheckpointRef | null {
    return this.state.checkpoints.at(-1) ?? null;
  }

  /** Members with a lease that were not told to leave, by slot. */
  liveMembers(): MemberRecord[] {
    return [...this.state.members.values()].filter((member) => !member.dismissed).sort((a, b) => a.slot - b.slot);
  }

  putMember(member: MemberRecord) {
    this.state.members.set(member.memberId, member);
  }

  /** Holds lanes of the newest generation in HEAD. */
  isLeased(memberId: string): boolean {
    return this.state.leases.some((lease) => lease.memberId === memberId);
  }

  setPhase(phase: CorePhase) {
    this.state.phase = phase;
    this.state.phaseSinceMs = this.nowMs;
  }

  publish(published: Published) {
    this.state.published = published;
    this.emit({ kind: 'publish', published });
  }

  /** An assignment from the draft's own leases and start step. */
  assignment(phase: AssignmentPhase, reason: string): Published {
    const { generation, leases, startStep, healSources } = this.state;
    const empty = phase === 'leave';
    return {
      generation,
      phase,
      leases: empty ? [] : leases,
      startStep,
      healSources: empty ? [] : healSources,
      checkpoint: this.checkpoint,
      reason,
    };
  }

  /** Asks for a HEAD write: what was asked last, with `parts` and the lifecycle, checkpoints and reason as they are now. Returns its
   * sequence. */
  writeHead(parts: Partial<Pick<HeadContent, 'generation' | 'leases' | 'startStep' | 'healSources'>> = {}): number {
    const { state } = this;
    state.headSequence += 1;
    const merged = { ...state.head, ...parts };
    const step = Math.max(merged.startStep, this.checkpoint?.step ?? 0);
    const lifecycle = state.lifecycle === 'superseded' ? 'active' : state.lifecycle;
    state.head = { ...merged, step, checkpoints: state.checkpoints, state: lifecycle, reason: state.reason };
    this.emit({ kind: 'write-head', sequence: state.headSequence, head: state.head });
    return state.headSequence;
  }
}

export function leaseOf(
  member: MemberRecord,
  rank: number,
  span: { readonly begin: number; readonly end: number },
): LaneLease {
  const { memberId, slot, host, pid, weight, incarnation } = member;
  return { memberId, slot, rank, laneBegin: span.begin, laneEnd: span.end, host, pid, weight, incarnation };
}
