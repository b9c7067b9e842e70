import { type Draft, leaseOf } from './draft.ts';
import { divideLanes } from './lanes.ts';
import { type StartPoint, startPoint } from './start-point.ts';
import type { LaneLease, MemberRecord } from './types.ts';

/** Forming generations: quiesce → choose the start → HEAD → heal → run (docs/protocol.md). */

/** Gives up the generation in force: every member is to stop and say what it applied. Waits for a HEAD write under way, because
 * HEAD would hold that generation all the same. */
export function beginGeneration(draft: Draft, reason: string) {
  const { state } = draft;
  if (state.phase === 'head') {
    if (state.formAt?.urgent !== true) state.formAt = { atMs: draft.nowMs, reason, urgent: true };
    draft.because(`after the HEAD write under way: ${reason}`);
    return;
  }
  if (state.phase === 'run') draft.emit({ kind: 'abort-step' });
  let newest = state.generation;
  // After a restart members may have heard of a generation that never reached HEAD: its number is used up.
  for (const member of state.members.values()) newest = Math.max(newest, member.generation);
  state.generation = newest + 1;
  state.formAt = null;
  state.suspicions = new Map();
  state.reason = reason;
  draft.because(`generation ${state.generation}: ${reason}`);
  draft.event('generation', reason, { generation: String(state.generation), phase: 'quiesce' });
  draft.setPhase('quiesce');
  draft.publish({
    generation: state.generation,
    phase: 'quiesce',
    leases: [],
    startStep: 0,
    healSources: [],
    checkpoint: draft.checkpoint,
    reason,
  });
}

/** A member is quiescent once it said so in this generation; one that never held lanes has nothing to stop. */
export function isQuiescent(member: MemberRecord, generation: number): boolean {
  if (member.phase === 'loading') return true;
  if (!member.heard) return false;
  if (member.phase === 'joined') return true;
  return member.generation === generation && (member.phase === 'quiesced' || member.phase === 'draining');
}

/** Moves the forming generation on as far as what is known allows. Called after every event. */
export function advance(draft: Draft) {
  const { state } = draft;
  if (state.formAt !== null && draft.nowMs >= state.formAt.atMs && mayReform(draft))
    beginGeneration(draft, state.formAt.reason);
  if (state.phase === 'idle' && state.lifecycle === 'active' && mayStart(draft)) {
    beginGeneration(draft, state.everFormed ? 'workers are back' : `${draft.liveMembers().length} workers joined`);
  }
  if (state.phase === 'adopt') adoptMembers(draft);
  if (state.phase === 'idle' || state.phase === 'run') releaseIdleDrainers(draft);
  if (state.phase === 'quiesce') tryForm(draft);
  if (state.phase === 'heal') tryRun(draft);
}

/** A generation is in force that the one that is due would replace. */
function mayReform(draft: Draft): boolean {
  const { phase, formAt } = draft.state;
  return phase === 'run' || (formAt?.urgent === true && (phase === 'heal' || phase === 'checkpoint'));
}

function mayStart(draft: Draft): boolean {
  const { settings, everFormed, waitingSinceMs } = draft.state;
  const ready = draft.liveMembers().filter((member) => member.heard && mayHoldLanes(member)).length;
  if (ready < settings.workersMin) return false;
  if (everFormed || ready >= settings.workersExpected) return true;
  return waitingSinceMs !== null && draft.nowMs >= waitingSinceMs + settings.joinWaitMs;
}

/** After a restart: goes on in the generation HEAD holds once all its members were heard there. */
function adoptMembers(draft: Draft) {
  const { state } = draft;
  const leased = state.leases.map((lease) => state.members.get(lease.memberId));
  const heard = leased.filter((member): member is MemberRecord => member?.heard === true);
  if (heard.some((member) => member.generation > state.headGeneration)) {
    return beginGeneration(draft, 'coordinator restarted while a generation was being formed');
  }
  if (leased.some((member) => member === undefined))
    return beginGeneration(draft, 'members were lost while the coordinator was away');
  if (heard.length < leased.length) return;
  if (state.lifecycle !== 'active') return beginGeneration(draft, state.reason);
  if (heard.some((member) => member.draining)) return beginGeneration(draft, 'a member drains');
  // A worker steps only after all were READY, so one that steps proves that the generation was running.
  const running = heard.some((member) => member.phase === 'stepping');
  const reason = 'coordinator restarted; all members adopted';
  draft.because(`generation ${state.generation}: ${reason}`);
  draft.event('generation', reason, { generation: String(state.generation) });
  draft.setPhase(running ? 'run' : 'heal');
  draft.publish(draft.assignment(running ? 'run' : 'heal', reason));
}

function tryForm(draft: Draft) {
  const { state } = draft;
  const live = draft.liveMembers();
  if (live.some((member) => !isQuiescent(member, state.generation))) return;
  const start = startPoint(live, draft.checkpoint, (step) => state.digests.get(step)?.digest);
  for (const member of start.divergent) {
    draft.event('warning', 'weights differ from the other members; it heals from them', {
      member: member.memberId,
      step: String(start.startStep),
    });
  }
  // The only member that had applied the last step may be gone: then there is a step to do after all.
  if (state.lifecycle === 'finishing' && start.startStep < state.settings.totalSteps) state.lifecycle = 'active';
  if (state.lifecycle === 'active' && start.startStep >= state.settings.totalSteps) state.lifecycle = 'finishing';
  if (state.lifecycle !== 'active') return formLast(draft, start.startStep, start.sources);
  const eligible = live.filter(mayHoldLanes);
  if (eligible.length >= state.settings.workersMin) return formWithout(draft, start, eligible);
  draft.because(`waits: ${eligible.length} of at least ${state.settings.workersMin} workers`);
  const drainers = live.filter((member) => member.draining);
  if (drainers.length > 0) return releaseDrainers(draft, start.startStep, start.sources, drainers);
  if (live.length === 0) goIdle(draft);
}

function mayHoldLanes(member: MemberRecord): boolean {
  return !member.draining && member.phase !== 'loading';
}

/** Forms a generation of those who stay. Where only members that drain hold the start step, they write it down first: weights are
 * fetched inside the group, and a committed step is not computed again for somebody's leaving. */
function formWithout(draft: Draft, start: StartPoint, eligible: readonly MemberRecord[]) {
  const { startStep, sources } = start;
  const held = sources.filter((member) => eligible.includes(member));
  if (sources.length === 0 || held.length > 0 || draft.checkpoint?.step === startStep) {
    return form(draft, startStep, held, eligible);
  }
  draft.because('only members that drain hold the weights: they write a checkpoint first');
  const { laneCount } = draft.state.settings;
  writeGeneration(draft, 'checkpoint', startStep, sources, leaseLanes(laneCount, sources.slice(0, laneCount)));
}

/** Leases the lanes to the first laneCount members by slot; those who hold the start step come first where not all fit. */
function form(draft: Draft, startStep: number, sources: readonly MemberRecord[], eligible: readonly MemberRecord[]) {
  const { laneCount } = draft.state.settings;
  const holdsStart = (member: MemberRecord): number => (sources.includes(member) ? 0 : 1);
  const chosen = [...eligible].sort((a, b) => holdsStart(a) - holdsStart(b) || a.slot - b.slot).slice(0, laneCount);
  chosen.sort((a, b) => a.slot - b.slot);
  // Weights are fetched inside the group: who is not in it cannot serve.
  const serving = sources.filter((member) => chosen.includes(member));
  writeGeneration(draft, 'heal', startStep, serving, leaseLanes(laneCount, chosen));
}

/** The last generation of a run that stops or ends: those who hold the start step write it down, then all leave. */
function formLast(draft: Draft, startStep: number, sources: readonly MemberRecord[]) {
  if (sources.length === 0 || draft.checkpoint?.step === startStep) return endRun(draft);
  const chosen = sources.slice(0, draft.state.settings.laneCount);
  writeGeneration(draft, 'checkpoint', startStep, sources, leaseLanes(draft.state.settings.laneCount, chosen));
}

/** Too few stay to go on. Whoever drains may leave once somebody else, or a checkpoint, holds the newest step. */
function releaseDrainers(
  draft: Draft,
  startStep: number,
  sources: readonly MemberRecord[],
  drainers: readonly MemberRecord[],
) {
  const heldElsewhere =
    sources.some((member) => !member.draining) || sources.length === 0 || draft.checkpoint?.step === startStep;
  if (!heldElsewhere) {
    draft.because('the last holders of the weights drain: they write a checkpoint first');
    const chosen = sources.slice(0, draft.state.settings.laneCount);
    return writeGeneration(draft, 'checkpoint', startStep, sources, leaseLanes(draft.state.settings.laneCount, chosen));
  }
  for (const member of drainers) dismiss(draft, member);
  if (draft.liveMembers().length === 0) goIdle(draft);
}

/** Spares and newcomers that drain: they may go at once, unless they alone hold weights that no checkpoint does. */
function releaseIdleDrainers(draft: Draft) {
  const { state } = draft;
  const drainers = draft
    .liveMembers()
    .filter((member) => member.heard && member.draining && !draft.isLeased(member.memberId));
  const isSoleCopy = (member: MemberRecord) => member.hasWeights && member.appliedStep > (draft.checkpoint?.step ?? 0);
  if (state.phase === 'idle' && drainers.some(isSoleCopy))
    return beginGeneration(draft, 'the last holders of the weights drain');
  for (const member of drainers) dismiss(draft, member);
}

function leaseLanes(laneCount: number, members: readonly MemberRecord[]): LaneLease[] {
  const spans = divideLanes(
    laneCount,
    members.map((member) => member.weight),
  );
  return members.map((member, rank) => leaseOf(member, rank, spans[rank]!));
}

function writeGeneration(
  draft: Draft,
  phase: 'heal' | 'checkpoint',
  startStep: number,
  sources: readonly MemberRecord[],
  leases: readonly LaneLease[],
) {
  const { state } = draft;
  const healSources = sources.map((member) => member.memberId);
  const sequence = draft.writeHead({ generation: state.generation, leases, startStep, healSources });
  const { generation, reason } = state;
  state.pendingHead = {
    sequence,
    publish: { generation, phase, leases, startStep, healSources, checkpoint: draft.checkpoint, reason },
  };
  draft.because(
    `generation ${generation}: starts at step ${startStep} with ${leases.length} members, ${healSources.length} hold it`,
  );
  draft.setPhase('head');
}

/** HEAD holds the generation: only now may anyone act on it. */
export function headWritten(draft: Draft, sequence: number) {
  const { state } = draft;
  const pending = state.pendingHead;
  if (pending === null || pending.sequence !== sequence) return;
  state.pendingHead = null;
  const { publish } = pending;
  if (publish.phase === 'leave') {
    state.headGeneration = publish.generation;
    state.formAt = null;
    draft.setPhase('leave');
    return draft.publish(publish);
  }
  state.previousHeadGeneration = state.headGeneration;
  state.headGeneration = publish.generation;
  state.leases = publish.leases;
  state.startStep = publish.startStep;
  state.healSources = publish.healSources;
  state.everFormed = true;
  settleStart(draft);
  draft.setPhase(publish.phase === 'checkpoint' ? 'checkpoint' : 'heal');
  draft.event(
    'generation',
    `generation ${publish.generation} starts at step ${publish.startStep} with ${publish.leases.length} members`,
    {
      generation: String(publish.generation),
      phase: publish.phase,
      step: String(publish.startStep),
      members: String(publish.leases.length),
    },
  );
  draft.publish(publish);
}

/** What members applied is the record: steps nobody reported count as committed, steps nobody holds are computed again. */
function settleStart(draft: Draft) {
  const { state } = draft;
  const { startStep } = state;
  if (startStep > state.committedStep) {
    draft.emit({ kind: 'adopt-steps', from: state.committedStep, to: startStep });
    state.committedStep = startStep;
  }
  if (startStep < state.currentStep) {
    draft.event('warning', `steps ${startStep + 1} to ${state.currentStep} are computed again: no member holds them`, {
      step: String(startStep),
    });
  }
  state.currentStep = startStep;
}

function tryRun(draft: Draft) {
  const { state } = draft;
  const members = state.leases.map((lease) => state.members.get(lease.memberId));
  const isReady = (member: MemberRecord | undefined): boolean =>
    member !== undefined &&
    member.generation === state.generation &&
    (member.phase === 'ready' || member.phase === 'stepping') &&
    member.hasWeights &&
    (member.appliedStep === state.startStep || member.phase === 'stepping');
  if (!members.every(isReady)) return;
  const digests = new Set(members.map((member) => member!.weightsDigest).filter((digest) => digest !== ''));
  if (digests.size > 1) {
    draft.event('warning', 'members hold different weights for the same step', { step: String(state.startStep) });
    return beginGeneration(draft, `weights differ between members at step ${state.startStep}`);
  }
  draft.setPhase('run');
  draft.because(`generation ${state.generation}: all ${members.length} members ready`);
  draft.publish(draft.assignment('run', state.reason));
  draft.event('generation', `generation ${state.generation} runs`, {
    generation: String(state.generation),
    phase: 'run',
  });
  draft.emit({ kind: 'formed', generation: state.generation, durationMs: draft.nowMs - state.phaseSinceMs });
  // Their weights were a possible source until now.
  for (const member of draft.liveMembers())
    if (member.draining && !draft.isLeased(member.memberId)) dismiss(draft, member);
}

/** The awaited last checkpoint is in HEAD's write queue: whoever was waited for may go. */
export function lastCheckpointTaken(draft: Draft) {
  const { state } = draft;
  if (state.lifecycle !== 'active') return endRun(draft);
  for (const member of draft.liveMembers()) if (member.draining) dismiss(draft, member);
  if (draft.liveMembers().length === 0) goIdle(draft);
  else beginGeneration(draft, 'the members that drained are gone');
}

/** Ends the run as its lifecycle says; members are told to leave once HEAD says so too. */
export function endRun(draft: Draft) {
  const { state } = draft;
  if (state.lifecycle === 'stopping') state.lifecycle = 'stopped';
  if (state.lifecycle === 'finishing') state.lifecycle = 'finished';
  if (state.lifecycle !== 'failed') state.reason = `${state.lifecycle} at step ${draft.checkpoint?.step ?? 0}`;
  const sequence = draft.writeHead({ generation: state.generation, leases: [], healSources: [] });
  state.leases = [];
  state.healSources = [];
  state.pendingHead = { sequence, publish: draft.assignment('leave', state.reason) };
  draft.setPhase('head');
  draft.because(state.reason);
  draft.event('state', state.reason, { state: state.lifecycle });
}

function dismiss(draft: Draft, member: MemberRecord) {
  draft.putMember({ ...member, dismissed: true });
  draft.because(`${member.memberId} may leave`);
  draft.emit({ kind: 'membership', change: 'drain', memberId: member.memberId });
}

/** No member is left: the next ones start from the newest checkpoint. */
export function goIdle(draft: Draft) {
  const { state } = draft;
  state.published = null;
  state.pendingHead = null;
  state.formAt = null;
  state.waitingSinceMs = null;
  state.reason = 'waits for workers';
  draft.setPhase('idle');
  draft.because(state.reason);
}
