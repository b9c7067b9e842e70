import { Draft } from './draft.ts';
import { advance, beginGeneration, headWritten } from './generation.ts';
import { expireMembers, heartbeat, join, judgeSuspicions, leave, settleEmpty } from './membership.ts';
import { commit, fail, takeCheckpoint, takeEvaluation } from './progress.ts';
import type { CoreEvent, Outcome, RunCoreState } from './types.ts';

/**
 * Every decision about a run: `(state, event, now) → {state, effects, reason}`. No clock, no input or output; the same arguments
 * give the same outcome. The caller carries out the effects in order, answers each write-head with head-written or head-lost, and
 * sends a tick at least every quarter of a lease. See docs/protocol.md.
 */
export function transition(state: RunCoreState, event: CoreEvent, nowMs: number): Outcome {
  const draft = new Draft(state, nowMs);
  if (state.lifecycle === 'superseded') {
    draft.refuse('UNAVAILABLE', `Cannot serve run ${state.settings.run}: another coordinator advanced it`);
    return draft.outcome();
  }
  apply(draft, event);
  judgeSuspicions(draft);
  settleEmpty(draft);
  advance(draft);
  return draft.outcome();
}

function apply(draft: Draft, event: CoreEvent) {
  switch (event.kind) {
    case 'join':
      return join(draft, event);
    case 'heartbeat':
      return heartbeat(draft, event);
    case 'leave':
      return leave(draft, event);
    case 'commit':
      return commit(draft, event);
    case 'evaluation':
      return takeEvaluation(draft, event);
    case 'checkpoint':
      return takeCheckpoint(draft, event);
    case 'failure':
      return fail(draft, event);
    case 'stop':
      return stop(draft);
    case 'resume':
      return resume(draft);
    case 'tick':
      return expireMembers(draft);
    case 'head-written':
      return headWritten(draft, event.sequence);
    case 'head-lost':
      return stepDown(draft, event.by);
  }
}

function stop(draft: Draft) {
  const { state } = draft;
  // Asked again, or over already: what it asks for is so, or will be.
  if (state.lifecycle !== 'active') return;
  state.lifecycle = 'stopping';
  state.reason = 'stop was asked for';
  draft.event('state', state.reason, { state: 'stopping' });
  // So that a successor of this coordinator stops the run too.
  draft.reply({ afterHead: draft.writeHead() });
  if (state.phase === 'idle' || state.phase === 'quiesce') {
    draft.setPhase('quiesce');
    draft.because(state.reason);
  } else if (state.phase !== 'adopt') {
    beginGeneration(draft, state.reason);
  }
}

function resume(draft: Draft) {
  const { state } = draft;
  if (state.lifecycle === 'active') return;
  if ((state.lifecycle !== 'stopped' && state.lifecycle !== 'failed') || state.phase === 'head') {
    return draft.refuse(
      'PRECONDITION_FAILED',
      `Cannot resume run ${state.settings.run}: it is ${state.lifecycle}; only a stopped or failed run can be`,
    );
  }
  state.lifecycle = 'active';
  state.reason = `resumed at step ${draft.checkpoint?.step ?? 0}; waits for workers`;
  // Those told to leave that have not left yet hold no part in what follows.
  state.members.clear();
  state.currentStep = draft.checkpoint?.step ?? 0;
  state.published = null;
  state.waitingSinceMs = null;
  draft.setPhase('idle');
  draft.because(state.reason);
  draft.event('state', state.reason, { state: 'active' });
  draft.reply({ afterHead: draft.writeHead({ startStep: state.currentStep }) });
}

function stepDown(draft: Draft, by: string) {
  const { state } = draft;
  state.lifecycle = 'superseded';
  state.phase = 'leave';
  state.reason = `another coordinator (${by}) advanced HEAD`;
  state.members.clear();
  state.published = null;
  state.pendingHead = null;
  state.formAt = null;
  draft.because(state.reason);
  draft.event('state', state.reason, { state: 'superseded' });
}
