import type { CheckpointRef, MemberRecord } from './types.ts';

export interface StartPoint {
  readonly startStep: number;
  /** Members that hold startStep with the weights the run goes on with. Empty: from the checkpoint, or from the seed. */
  readonly sources: readonly MemberRecord[];
  /** Members that hold startStep with other weights. */
  readonly divergent: readonly MemberRecord[];
}

/**
 * Where a generation starts: the highest step any member applied, or the newest checkpoint where that is ahead; else 0.
 * Among members at that step with different weights the committed digest wins, else the majority, else the lowest slot.
 */
export function startPoint(
  members: readonly MemberRecord[],
  checkpoint: CheckpointRef | null,
  committedDigest: (step: number) => string | undefined,
): StartPoint {
  const holders = members.filter((member) => member.hasWeights);
  if (holders.length === 0) return { startStep: checkpoint?.step ?? 0, sources: [], divergent: [] };
  const startStep = Math.max(...holders.map((member) => member.appliedStep));
  if (checkpoint !== null && checkpoint.step > startStep)
    return { startStep: checkpoint.step, sources: [], divergent: [] };
  const atStart = holders.filter((member) => member.appliedStep === startStep).sort((a, b) => a.slot - b.slot);
  const groups = new Map<string, MemberRecord[]>();
  for (const member of atStart) groups.set(member.weightsDigest, [...(groups.get(member.weightsDigest) ?? []), member]);
  const committed = committedDigest(startStep);
  const byPreference = [...groups.entries()].sort(([digestA, a], [digestB, b]) => {
    const agreed = Number(digestB === committed) - Number(digestA === committed);
    return agreed || b.length - a.length || a[0]!.slot - b[0]!.slot;
  });
  const sources = byPreference[0]![1];
  return { startStep, sources, divergent: atStart.filter((member) => !sources.includes(member)) };
}
