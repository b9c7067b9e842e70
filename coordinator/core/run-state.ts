import type { HeadContent, MemberRecord, RunCoreState, RunSettings } from './types.ts';

/** Time a restarted coordinator gives the members that HEAD lists, in lease times: they may be in a backoff of their own. */
const RESTORE_GRACE_LEASES = 2;

const EMPTY_HEAD: HeadContent = {
  generation: 0,
  step: 0,
  startStep: 0,
  leases: [],
  healSources: [],
  checkpoints: [],
  state: 'active',
  reason: 'submitted; waits for workers',
};

/** A run nobody has worked on yet. Its HEAD says `state.head`. */
export function newRun(settings: RunSettings, nowMs: number): RunCoreState {
  return {
    settings,
    lifecycle: 'active',
    phase: 'idle',
    phaseSinceMs: nowMs,
    generation: 0,
    headGeneration: 0,
    previousHeadGeneration: 0,
    leases: [],
    startStep: 0,
    healSources: [],
    published: null,
    pendingHead: null,
    headSequence: 0,
    head: EMPTY_HEAD,
    members: new Map(),
    committedStep: 0,
    currentStep: 0,
    digests: new Map(),
    evaluated: { step: 0, generation: 0 },
    gapAllowed: false,
    checkpoints: [],
    formAt: null,
    suspicions: new Map(),
    waitingSinceMs: null,
    everFormed: false,
    reason: EMPTY_HEAD.reason,
  };
}

/** A run as HEAD tells it. Its members keep their leases for a grace time; until each was heard or has expired, nothing is published
 * and nothing is leased anew. */
export function restoreRun(settings: RunSettings, head: HeadContent, nowMs: number): RunCoreState {
  const over = head.state === 'stopped' || head.state === 'finished' || head.state === 'failed';
  const members = new Map<string, MemberRecord>();
  for (const lease of over ? [] : head.leases) {
    members.set(lease.memberId, {
      memberId: lease.memberId,
      slot: lease.slot,
      incarnation: lease.incarnation,
      host: lease.host,
      pid: lease.pid,
      weight: lease.weight,
      phase: 'joined',
      draining: false,
      dismissed: false,
      heard: false,
      generation: 0,
      appliedStep: 0,
      hasWeights: false,
      weightsDigest: '',
      expiresAtMs: nowMs + RESTORE_GRACE_LEASES * settings.leaseTtlMs,
      strikes: 0,
    });
  }
  return {
    ...newRun(settings, nowMs),
    lifecycle: head.state,
    head,
    phase: members.size > 0 ? 'adopt' : over ? 'leave' : 'idle',
    generation: head.generation,
    headGeneration: head.generation,
    leases: head.leases,
    startStep: head.startStep,
    healSources: head.healSources,
    members,
    committedStep: head.step,
    currentStep: head.step,
    gapAllowed: true,
    checkpoints: head.checkpoints,
    everFormed: head.generation > 0,
    reason: head.reason,
  };
}

export type RunStatus =
  | 'pending'
  | 'forming'
  | 'running'
  | 'stopping'
  | 'stopped'
  | 'finished'
  | 'failed'
  | 'superseded';

/** What people are told the run is doing. */
export function runStatus(state: RunCoreState): RunStatus {
  if (state.lifecycle === 'finishing') return 'stopping';
  if (state.lifecycle !== 'active') return state.lifecycle;
  if (state.phase === 'idle') return 'pending';
  if (state.phase === 'quiesce') return eligibleCount(state) >= state.settings.workersMin ? 'forming' : 'pending';
  // While members are adopted, they train on.
  return state.phase === 'run' || state.phase === 'adopt' ? 'running' : 'forming';
}

/** Members that may hold lanes. */
export function eligibleCount(state: RunCoreState): number {
  let count = 0;
  for (const member of state.members.values()) if (!member.draining && !member.dismissed) count += 1;
  return count;
}

/** True where the run takes another worker: as a holder of lanes, not as a spare. */
export function wantsWorkers(state: RunCoreState): boolean {
  return state.lifecycle === 'active' && eligibleCount(state) < state.settings.laneCount;
}
