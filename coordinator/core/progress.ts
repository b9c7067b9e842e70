import type { Draft } from './draft.ts';
import { beginGeneration, endRun, lastCheckpointTaken } from './generation.ts';
import type { CoreEvent } from './types.ts';

/** Steps whose digests are remembered, to compare late reports with. */
export const DIGESTS_MAX = 1024;

type EventOf<Kind extends CoreEvent['kind']> = Extract<CoreEvent, { kind: Kind }>;

/** Fences: only a member with a lease may report, and only in the newest generation that HEAD holds. */
function isCurrent(draft: Draft, what: string, memberId: string, generation: number): boolean {
  const { state } = draft;
  if (state.members.has(memberId) && generation === state.headGeneration && draft.isLeased(memberId)) return true;
  draft.emit({ kind: 'fenced', what });
  const known = state.members.has(memberId)
    ? `of generation ${generation}, HEAD holds ${state.headGeneration}`
    : 'its lease ran out';
  draft.refuse(
    'STALE_GENERATION',
    `Cannot accept ${what} of ${memberId}: ${known}; take the newest assignment, or join again`,
  );
  return false;
}

/** A step is committed by its first report; the members that follow must hold the same weights. */
export function commit(draft: Draft, event: EventOf<'commit'>) {
  const { state } = draft;
  if (takeLateRecord(draft, event)) return;
  if (!isCurrent(draft, 'commit', event.memberId, event.generation)) return;
  const { step } = event;
  if (step <= state.currentStep) return compareDigest(draft, event);
  if (step > state.currentStep + 1) {
    if (!state.gapAllowed) {
      return draft.refuse(
        'ABORTED',
        `Cannot commit step ${step}: step ${state.currentStep + 1} is not committed; report it first`,
      );
    }
    // This coordinator is younger than the generation: the reports in between went to its predecessor.
    draft.emit({ kind: 'adopt-steps', from: state.currentStep, to: step - 1 });
  }
  state.gapAllowed = false;
  state.currentStep = step;
  const isNew = step > state.committedStep;
  if (isNew) state.committedStep = step;
  remember(draft, step, event.digest);
  // A step that everyone took part in clears whoever was accused before.
  for (const member of state.members.values()) if (member.strikes > 0) draft.putMember({ ...member, strikes: 0 });
  draft.emit({ kind: 'record-step', step, result: isNew ? 'committed' : 'recomputed' });
  draft.reply({ diverged: false });
  draft.because(`step ${step} ${isNew ? 'committed' : 'committed again'}`);
  if (step >= state.settings.totalSteps && state.lifecycle === 'active') {
    state.lifecycle = 'finishing';
    if (state.phase === 'run' || state.phase === 'heal') beginGeneration(draft, 'all steps are committed');
  }
}

/** The record of a step that the generation change had already counted, from one of those who applied it: for the books only. */
function takeLateRecord(draft: Draft, event: EventOf<'commit'>): boolean {
  const { state } = draft;
  const late = event.generation === state.previousHeadGeneration && event.generation < state.headGeneration;
  if (!late || !state.members.has(event.memberId) || event.step > state.startStep) return false;
  draft.reply({ diverged: false });
  if (state.digests.has(event.step)) return true;
  remember(draft, event.step, event.digest);
  draft.emit({ kind: 'record-step', step: event.step, result: 'late' });
  return true;
}

function compareDigest(draft: Draft, event: EventOf<'commit'>) {
  const { state } = draft;
  const known = state.digests.get(event.step);
  // Below the start step another generation's record counts; its members may have left with it.
  if (known === undefined) {
    remember(draft, event.step, event.digest);
    draft.emit({ kind: 'record-step', step: event.step, result: 'late' });
    return draft.reply({ diverged: false });
  }
  const diverged = known.digest !== event.digest;
  draft.reply({ diverged });
  if (!diverged) return;
  draft.because(`${event.memberId} diverged at step ${event.step}`);
  draft.event('warning', `weights differ after step ${event.step}`, {
    member: event.memberId,
    digest: event.digest,
    committed: known.digest,
  });
}

function remember(draft: Draft, step: number, digest: string) {
  const { state } = draft;
  const digests = new Map(state.digests);
  digests.delete(step);
  digests.set(step, { generation: state.headGeneration, digest });
  for (const oldest of digests.keys()) {
    if (digests.size <= DIGESTS_MAX) break;
    digests.delete(oldest);
  }
  state.digests = digests;
}

/**
 * The first report of a step's evaluation counts; the members' reports are equal. A generation that evaluates again replaces what an older
 * one said: that one may have been of weights that were lost.
 */
export function takeEvaluation(draft: Draft, event: EventOf<'evaluation'>) {
  const { state } = draft;
  const late = event.generation === state.previousHeadGeneration && state.members.has(event.memberId);
  if (!late && !isCurrent(draft, 'evaluation', event.memberId, event.generation)) return;
  const { step, generation } = state.evaluated;
  if (event.generation < generation || (event.generation === generation && event.step <= step)) return;
  state.evaluated = { step: event.step, generation: event.generation };
  draft.because(`step ${event.step} evaluated`);
  draft.emit({ kind: 'record-evaluation', step: event.step });
}

/** Moves HEAD to a stored checkpoint. The caller is answered once HEAD says so. */
export function takeCheckpoint(draft: Draft, event: EventOf<'checkpoint'>) {
  const { state } = draft;
  const { checkpoint } = event;
  const newest = draft.checkpoint;
  if (newest?.manifestKey === checkpoint.manifestKey && newest.manifestSha256 === checkpoint.manifestSha256) {
    // The answer to the first report was lost.
    return draft.reply({ afterHead: state.headSequence });
  }
  if (!isCurrent(draft, 'checkpoint', event.memberId, event.generation)) return;
  if (checkpoint.step > state.committedStep) {
    return draft.refuse(
      'ABORTED',
      `Cannot take the checkpoint of step ${checkpoint.step}: only ${state.committedStep} steps are committed`,
    );
  }
  if (newest !== null && checkpoint.step <= newest.step) {
    return draft.refuse(
      'PRECONDITION_FAILED',
      `Cannot take the checkpoint of step ${checkpoint.step}: HEAD holds one of step ${newest.step}`,
    );
  }
  state.checkpoints = [...state.checkpoints, checkpoint].slice(-state.settings.checkpointsKept);
  draft.because(`checkpoint of step ${checkpoint.step}`);
  draft.event('checkpoint', `checkpoint of step ${checkpoint.step}`, {
    step: String(checkpoint.step),
    key: checkpoint.manifestKey,
  });
  const isLast = state.phase === 'checkpoint' && checkpoint.step >= state.startStep;
  if (!isLast) return draft.reply({ afterHead: draft.writeHead() });
  if (state.lifecycle === 'active') draft.writeHead({ leases: [], healSources: [] });
  lastCheckpointTaken(draft);
  draft.reply({ afterHead: state.headSequence });
}

/** The run cannot go on. What the newest checkpoint holds can be resumed. */
export function fail(draft: Draft, event: EventOf<'failure'>) {
  const { state } = draft;
  if (!isCurrent(draft, 'failure', event.memberId, event.generation)) return;
  if (state.lifecycle !== 'active' && state.lifecycle !== 'stopping' && state.lifecycle !== 'finishing') return;
  state.lifecycle = 'failed';
  state.reason = `${event.code}: ${event.message}`;
  if (state.phase === 'run') draft.emit({ kind: 'abort-step' });
  endRun(draft);
  draft.reply({ afterHead: state.headSequence });
}
