import type { Draft } from './draft.ts';
import { beginGeneration, endRun, goIdle } from './generation.ts';
import type { CoreEvent, MemberRecord, MembershipChange } from './types.ts';

/** Generations in a row that ended because all others waited for one member in vain, after which it is evicted. */
const STRIKES_MAX = 2;
/** Fewer accusers than this cannot tell the accused's fault from their own. */
const ACCUSERS_MIN = 2;

type EventOf<Kind extends CoreEvent['kind']> = Extract<CoreEvent, { kind: Kind }>;

export function join(draft: Draft, event: EventOf<'join'>) {
  const { state } = draft;
  // While the last checkpoint is being written its writer may be dead already: whoever comes then is who computes the end again.
  if (state.lifecycle !== 'active' && state.lifecycle !== 'finishing') {
    return draft.refuse('PRECONDITION_FAILED', `Cannot join run ${state.settings.run}: it is ${state.lifecycle}`);
  }
  const known = [...state.members.values()].find(
    (member) => member.incarnation === event.incarnation && !member.dismissed,
  );
  if (known !== undefined && !known.heard && state.phase !== 'adopt') {
    // The answer to the first Join was lost.
    draft.putMember({ ...known, expiresAtMs: draft.nowMs + state.settings.leaseTtlMs });
    return draft.reply({ memberId: known.memberId });
  }
  if (known !== undefined) removeMember(draft, known, 'leave', 'joined again');
  const slots = new Set([...state.members.values()].map((member) => member.slot));
  let slot = 0;
  while (slots.has(slot)) slot += 1;
  const { memberId, incarnation, host, pid, weight } = event;
  draft.putMember({
    memberId,
    slot,
    incarnation,
    host,
    pid,
    weight: Number.isFinite(weight) && weight > 0 ? weight : 1,
    phase: event.loading === true ? 'loading' : 'joined',
    draining: false,
    dismissed: false,
    heard: false,
    generation: 0,
    appliedStep: 0,
    hasWeights: false,
    weightsDigest: '',
    expiresAtMs: draft.nowMs + state.settings.leaseTtlMs,
    strikes: 0,
  });
  state.waitingSinceMs ??= draft.nowMs;
  draft.reply({ memberId });
  draft.because(`${memberId} joined as slot ${slot}`);
  draft.emit({ kind: 'membership', change: 'join', memberId });
  draft.event('member', `worker ${slot} joined`, { member: memberId, host, pid: String(pid) });
  if (event.loading !== true) wantLanes(draft, slot);
}

/** A member is there that could hold lanes: soon there will be a generation with it. */
function wantLanes(draft: Draft, slot: number) {
  const { state } = draft;
  const full = state.leases.length >= state.settings.laneCount;
  const formed = state.phase === 'heal' || state.phase === 'run' || state.phase === 'head' || state.phase === 'adopt';
  if (formed && !full)
    state.formAt ??= {
      atMs: draft.nowMs + state.settings.joinCoalesceMs,
      reason: `worker ${slot} joined`,
      urgent: false,
    };
}

export function heartbeat(draft: Draft, event: EventOf<'heartbeat'>) {
  const { state } = draft;
  const member = state.members.get(event.memberId);
  if (member === undefined) {
    draft.emit({ kind: 'fenced', what: 'heartbeat' });
    return draft.refuse(
      'NOT_FOUND',
      `Cannot renew the lease of ${event.memberId}: it is not a member of run ${state.settings.run} (any more); join again`,
    );
  }
  const draining = member.draining || event.phase === 'draining';
  draft.putMember({
    ...member,
    phase: event.phase,
    draining,
    heard: true,
    generation: event.generation,
    appliedStep: event.appliedStep,
    hasWeights: event.hasWeights,
    weightsDigest: event.digest,
    expiresAtMs: draft.nowMs + state.settings.leaseTtlMs,
  });
  if (member.phase === 'loading' && event.phase === 'joined') wantLanes(draft, member.slot);
  if (draining && !member.draining) {
    draft.event('member', `worker ${member.slot} drains`, { member: member.memberId });
    const formed = state.phase === 'heal' || state.phase === 'run' || state.phase === 'head';
    if (formed && draft.isLeased(member.memberId)) beginGeneration(draft, `worker ${member.slot} drains`);
  }
  const decides = state.phase !== 'adopt' && state.phase !== 'leave';
  if (decides && event.generation > state.generation) {
    // It acted on a QUIESCE of this coordinator's predecessor, and will heed nothing older.
    beginGeneration(draft, `worker ${member.slot} has heard of generation ${event.generation}`);
  }
  if (event.generation === state.generation) for (const suspect of event.suspects) accuse(draft, member, suspect);
}

/** A collective timed out. If the accused is dead its lease ends by itself; if not, everyone tries again in a new generation. */
function accuse(draft: Draft, accuser: MemberRecord, suspectId: string) {
  const { state } = draft;
  const suspect = state.members.get(suspectId);
  if ((state.phase !== 'run' && state.phase !== 'heal') || suspect === undefined || suspectId === accuser.memberId)
    return;
  const accusers = state.suspicions.get(suspectId);
  if (accusers?.has(accuser.memberId)) return;
  state.suspicions = new Map(state.suspicions).set(suspectId, new Set([...(accusers ?? []), accuser.memberId]));
  draft.because(`${accuser.memberId} waited in vain for ${suspectId}`);
  draft.event('warning', `worker ${accuser.slot} waited in vain for worker ${suspect.slot}`, {
    member: accuser.memberId,
    suspect: suspectId,
  });
  const reason = `worker ${accuser.slot} waited in vain for worker ${suspect.slot}`;
  if (state.formAt?.urgent !== true)
    state.formAt = { atMs: draft.nowMs + state.settings.joinCoalesceMs, reason, urgent: true };
}

/** Counts a strike for each member that all others accused; evicts who has too many. Called when gathered suspicions are due. */
export function judgeSuspicions(draft: Draft) {
  const { state } = draft;
  if (state.suspicions.size === 0 || state.formAt === null || draft.nowMs < state.formAt.atMs) return;
  for (const [suspectId, accusers] of state.suspicions) {
    const suspect = state.members.get(suspectId);
    const others = state.leases.filter((lease) => lease.memberId !== suspectId && state.members.has(lease.memberId));
    if (suspect === undefined || others.length < ACCUSERS_MIN || !others.every((lease) => accusers.has(lease.memberId)))
      continue;
    const strikes = suspect.strikes + 1;
    draft.putMember({ ...suspect, strikes });
    if (strikes >= STRIKES_MAX) removeMember(draft, suspect, 'evict', 'all others waited for it in vain, repeatedly');
  }
}

export function leave(draft: Draft, event: EventOf<'leave'>) {
  const member = draft.state.members.get(event.memberId);
  // A repeated Leave, or one after the lease ran out: what it asks for is so already.
  if (member === undefined) return;
  removeMember(draft, member, 'leave', event.reason || 'left');
}

/** Takes away leases that ran out and members that hold up a phase beyond its limit. */
export function expireMembers(draft: Draft) {
  const { state } = draft;
  for (const member of [...state.members.values()]) {
    if (draft.nowMs >= member.expiresAtMs) removeMember(draft, member, 'dead', 'its lease ran out');
  }
  const { quiesceTimeoutMs, healTimeoutMs, checkpointTimeoutMs } = state.settings;
  const limits = { quiesce: quiesceTimeoutMs, heal: healTimeoutMs, checkpoint: checkpointTimeoutMs } as const;
  const { phase } = state;
  if (phase !== 'quiesce' && phase !== 'heal' && phase !== 'checkpoint') return;
  if (draft.nowMs < state.phaseSinceMs + limits[phase]) return;
  for (const member of laggards(draft))
    removeMember(draft, member, 'evict', `held up ${phase} for ${limits[phase]} ms`);
}

function laggards(draft: Draft): MemberRecord[] {
  const { state } = draft;
  const live = draft.liveMembers();
  if (state.phase === 'quiesce')
    return live.filter(
      (member) =>
        member.phase !== 'joined' &&
        member.phase !== 'loading' &&
        !(member.generation === state.generation && (member.phase === 'quiesced' || member.phase === 'draining')),
    );
  if (state.phase === 'checkpoint') return live.filter((member) => member.memberId === state.leases[0]?.memberId);
  return live.filter(
    (member) =>
      draft.isLeased(member.memberId) &&
      !(member.generation === state.generation && (member.phase === 'ready' || member.phase === 'stepping')),
  );
}

function removeMember(draft: Draft, member: MemberRecord, change: MembershipChange, why: string) {
  const { state } = draft;
  state.members.delete(member.memberId);
  if (member.dismissed || state.phase === 'leave') return;
  draft.because(`${member.memberId} is gone: ${why}`);
  draft.emit({ kind: 'membership', change, memberId: member.memberId });
  draft.event('member', `worker ${member.slot} is gone: ${why}`, { member: member.memberId, change });
  if (state.members.size === 0 && (state.phase === 'idle' || state.phase === 'adopt')) state.waitingSinceMs = null;
  const involved = draft.isLeased(member.memberId) || state.healSources.includes(member.memberId);
  const formed =
    state.phase === 'heal' || state.phase === 'run' || state.phase === 'head' || state.phase === 'checkpoint';
  if (formed && involved) beginGeneration(draft, `worker ${member.slot} is gone: ${why}`);
}

/** Nobody is left: a run that stops is stopped, another waits. */
export function settleEmpty(draft: Draft) {
  const { state } = draft;
  if (draft.liveMembers().length > 0 || state.phase === 'idle' || state.phase === 'leave' || state.phase === 'head')
    return;
  if (state.lifecycle === 'active') return goIdle(draft);
  if (state.lifecycle === 'stopping' || state.lifecycle === 'finishing') {
    // All copies of the weights are gone; what the newest checkpoint holds is what there is.
    if (state.lifecycle === 'finishing' && (draft.checkpoint?.step ?? 0) < state.settings.totalSteps) {
      state.lifecycle = 'active';
      return goIdle(draft);
    }
    endRun(draft);
  }
}
