import { CoveyError } from '../../common/errors.ts';
import type { Group } from './collectives.ts';
import { maximalSubtrees } from './lane-tree.ts';

/** Throws INVALID_ARGUMENT naming every problem of a group. */
export function checkGroup(group: Group): void {
  const problems: string[] = [];
  if (!Number.isSafeInteger(group.generation) || group.generation < 0)
    problems.push(`generation is ${group.generation}`);
  if (!/^[A-Za-z0-9_-]{1,64}$/.test(group.run))
    problems.push(`run ${JSON.stringify(group.run)} is not a subject token`);
  if (group.members.length === 0) problems.push('there are no members');
  if (!group.members[group.rank]) problems.push(`rank ${group.rank} is not one of ${group.members.length} members`);
  if (new Set(group.members.map((member) => member.memberId)).size !== group.members.length)
    problems.push('member ids repeat');
  let next = 0;
  for (const { memberId, laneBegin, laneEnd } of group.members) {
    if (laneBegin !== next || laneEnd < laneBegin)
      problems.push(`${memberId} holds lanes [${laneBegin}, ${laneEnd}), expected from ${next}`);
    next = laneEnd;
  }
  if (next !== group.laneCount) problems.push(`members hold ${next} of ${group.laneCount} lanes`);
  if (problems.length > 0) {
    throw new CoveyError('INVALID_ARGUMENT', `Cannot enter generation ${group.generation}: ${problems.join('; ')}`, {
      fields: { problems },
    });
  }
}

/** Throws INVALID_ARGUMENT where `out` does not hold exactly one block per lane. */
export function checkGather(group: Group, laneBytes: number, out: Uint8Array): void {
  if (!Number.isSafeInteger(laneBytes) || laneBytes < 0 || out.byteLength !== laneBytes * group.laneCount) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot gather: out has ${out.byteLength} bytes; expected ${group.laneCount} lanes of ${laneBytes} bytes`,
      { fields: { outBytes: out.byteLength, laneBytes, laneCount: group.laneCount } },
    );
  }
}

/** Throws INVALID_ARGUMENT where the partials are not one vector of out's length per maximal subtree held. */
export function checkReduce(group: Group, partials: readonly Float32Array[], out: Float32Array): void {
  const { laneBegin, laneEnd } = group.members[group.rank]!;
  const expected = maximalSubtrees(group.laneCount, { begin: laneBegin, end: laneEnd }).length;
  const lengths = partials.map((partial) => partial.length);
  if (partials.length !== expected || lengths.some((length) => length !== out.length)) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot reduce: partials have lengths [${lengths}]; expected ${expected} vectors of ${out.length} for lanes [${laneBegin}, ${laneEnd})`,
      { fields: { lengths, expected, floats: out.length } },
    );
  }
}

export function timeoutError(doing: string, timeoutMs: number, waitingFor: readonly string[]): CoveyError {
  return new CoveyError(
    'TIMEOUT',
    `${doing} did not finish within ${timeoutMs} ms: waiting for ${waitingFor.join(', ') || 'nobody'}`,
    {
      fields: { waitingFor, timeoutMs },
    },
  );
}
