import type { Assignment } from '../proto/gen/covey/v1/Assignment.ts';
import type { Checkpoint } from '../proto/gen/covey/v1/Checkpoint.ts';
import type { Member } from '../proto/gen/covey/v1/Member.ts';
import type { MemberState } from '../proto/gen/covey/v1/MemberState.ts';
import type { Phase } from '../proto/gen/covey/v1/Phase.ts';
import type { RunState } from '../proto/gen/covey/v1/RunState.ts';
import type { RunStatus } from './core/run-state.ts';
import type { AssignmentPhase, CheckpointRef, LaneLease, MemberPhase, MemberRecord, Published } from './core/types.ts';

/** Between the core's plain data and covey.v1 messages. */

const PHASES: Readonly<Record<AssignmentPhase, Phase>> = {
  quiesce: 'PHASE_QUIESCE',
  heal: 'PHASE_HEAL',
  run: 'PHASE_RUN',
  checkpoint: 'PHASE_CHECKPOINT_AND_LEAVE',
  leave: 'PHASE_LEAVE',
};

const MEMBER_STATES: Readonly<Record<MemberPhase, MemberState>> = {
  loading: 'MEMBER_STATE_LOADING',
  joined: 'MEMBER_STATE_JOINED',
  quiesced: 'MEMBER_STATE_QUIESCED',
  ready: 'MEMBER_STATE_READY',
  stepping: 'MEMBER_STATE_STEPPING',
  draining: 'MEMBER_STATE_DRAINING',
};

/** A coordinator that was superseded knows nothing of the run's state. */
const RUN_STATES: Readonly<Record<RunStatus, RunState>> = {
  pending: 'RUN_STATE_PENDING',
  forming: 'RUN_STATE_FORMING',
  running: 'RUN_STATE_RUNNING',
  stopping: 'RUN_STATE_STOPPING',
  stopped: 'RUN_STATE_STOPPED',
  finished: 'RUN_STATE_FINISHED',
  failed: 'RUN_STATE_FAILED',
  superseded: 'RUN_STATE_UNSPECIFIED',
};

export function runStateToWire(status: RunStatus): RunState {
  return RUN_STATES[status];
}

/** An unknown state (a newer worker's) counts as joined: it holds nothing up and is leased nothing it does not report ready for. */
export function memberPhaseFromWire(state: MemberState): MemberPhase {
  for (const [phase, wire] of Object.entries(MEMBER_STATES)) if (wire === state) return phase as MemberPhase;
  return 'joined';
}

export function checkpointToWire(checkpoint: CheckpointRef): Checkpoint {
  return { ...checkpoint };
}

export function checkpointFromWire(checkpoint: Checkpoint): CheckpointRef {
  const { step, generation, manifestKey, manifestSha256, bytes, createdAtSeconds } = checkpoint;
  return { step, generation, manifestKey, manifestSha256, bytes, createdAtSeconds };
}

/** A member of an assignment; its state and step are those of the time it was made. */
export function leaseToWire(lease: LaneLease, member: MemberRecord | undefined): Member {
  const { memberId, slot, rank, laneBegin, laneEnd, host, pid } = lease;
  const state = MEMBER_STATES[member?.phase ?? 'joined'];
  return { memberId, slot, rank, laneBegin, laneEnd, host, pid, state, appliedStep: member?.appliedStep ?? 0 };
}

/** Members as people see them: leased ones with their lanes, others (spares, newcomers) with none. */
export function membersToWire(members: Iterable<MemberRecord>, leases: readonly LaneLease[]): Member[] {
  const byId = new Map(leases.map((lease) => [lease.memberId, lease]));
  const listed: Member[] = [];
  for (const member of members) {
    const { memberId, slot, host, pid } = member;
    const unleased = { memberId, slot, rank: 0, laneBegin: 0, laneEnd: 0, host, pid, weight: 1, incarnation: '' };
    listed.push(leaseToWire(byId.get(memberId) ?? unleased, member));
  }
  return listed.sort((a, b) => a.slot - b.slot);
}

export function assignmentToWire(published: Published, members: ReadonlyMap<string, MemberRecord>): Assignment {
  const { generation, phase, startStep, healSources, checkpoint, reason } = published;
  return {
    generation,
    phase: PHASES[phase],
    members: published.leases.map((lease) => leaseToWire(lease, members.get(lease.memberId))),
    startStep,
    healSources: [...healSources],
    checkpoint: checkpoint && checkpointToWire(checkpoint),
    reason,
  };
}
