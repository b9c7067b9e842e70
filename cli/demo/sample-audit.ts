import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { CoveyError } from '../../common/errors.ts';
import type { ObservedStep } from './observed-run.ts';

/** What `covey worker --sample-log` writes for one lane of one applied step. Steps are counted from 0. */
const logLineSchema = z.object({
  step: z.int(),
  generation: z.int(),
  lane: z.int(),
  epoch: z.int(),
  samples: z.array(z.string()),
});

export type SampleLogLine = z.infer<typeof logLineSchema>;

export interface AuditOptions {
  /** Steps of the run; each was committed. */
  readonly totalSteps: number;
  /** As far as their records were seen. */
  readonly steps: readonly Pick<ObservedStep, 'step' | 'generation'>[];
  readonly lanes: number;
  /** Ids of the samples the plan gives a lane; the step counted from 0. */
  readonly planned: (step: number, lane: number) => Promise<readonly string[]>;
  /** The last committed step when a worker was killed: only about there may a line be missing. */
  readonly killedAtStep?: number;
}

export interface SampleAudit {
  /** Samples the plan asked for in the committed steps. */
  readonly planned: number;
  /** Planned samples that no worker says it consumed. */
  readonly lost: number;
  /** Samples consumed more often in a committed step than planned. */
  readonly duplicated: number;
  /**
   * Planned samples of lanes whose holder was killed between applying the step and writing its line. The step's sum holds every lane
   * or the step does not commit, and a survivor's line says it did: they were consumed, but there is no line to prove it.
   */
  readonly unlogged: number;
}

/** The lines of several workers' logs. A line cut off by a kill is left out; a broken line elsewhere is an error. */
export async function readSampleLogs(files: readonly string[]): Promise<SampleLogLine[]> {
  const lines: SampleLogLine[] = [];
  for (const file of files) {
    const texts = (await readFile(file, 'utf8')).split('\n').filter((text) => text !== '');
    for (const [index, text] of texts.entries()) {
      const parsed = logLineSchema.safeParse(parseOrUndefined(text));
      if (parsed.success) lines.push(parsed.data);
      else if (!isCutOff(text)) {
        throw new CoveyError(
          'DATA_CORRUPT',
          `Cannot read sample log ${file}: line ${index + 1} is not one of its lines`,
          { fields: { file } },
        );
      }
    }
  }
  return lines;
}

/**
 * Compares what the workers say they consumed with the plan, for the steps that were committed. A line counts where its generation
 * is the one that committed the step: what an abandoned attempt consumed was never part of the weights.
 */
export async function auditSamples(lines: readonly SampleLogLine[], options: AuditOptions): Promise<SampleAudit> {
  const consumed = new Map<string, string[]>();
  const applied = new Set<number>();
  const committedBy = generationsOf(lines, options);
  for (const line of lines) {
    if (committedBy.get(line.step) !== line.generation) continue;
    applied.add(line.step);
    const key = `${line.step}/${line.lane}`;
    consumed.set(key, [...(consumed.get(key) ?? []), ...line.samples]);
  }
  const { killedAtStep, lanes, totalSteps } = options;
  const mayLack = (step: number) =>
    killedAtStep !== undefined && Math.abs(step + 1 - killedAtStep) <= 1 && applied.has(step);
  const sums = { planned: 0, lost: 0, duplicated: 0, unlogged: 0 };
  for (let step = 0; step < totalSteps; step++) {
    for (let lane = 0; lane < lanes; lane++) {
      const expected = await options.planned(step, lane);
      const seen = consumed.get(`${step}/${lane}`);
      sums.planned += expected.length;
      if (seen === undefined && mayLack(step)) sums.unlogged += expected.length;
      else addDifference(sums, expected, seen ?? []);
    }
  }
  return sums;
}

/** Step (from 0) → the generation that committed it. A record that was not seen leaves the newest generation that applied the step. */
function generationsOf(lines: readonly SampleLogLine[], { steps }: AuditOptions): Map<number, number> {
  const generations = new Map<number, number>();
  for (const { step, generation } of lines) generations.set(step, Math.max(generation, generations.get(step) ?? 0));
  for (const { step, generation } of steps) generations.set(step - 1, generation);
  return generations;
}

/** Multiset difference: a sample may be planned twice in a lane only where an epoch ends in it, never within one. */
function addDifference(
  sums: { lost: number; duplicated: number },
  expected: readonly string[],
  seen: readonly string[],
): void {
  const counts = new Map<string, number>();
  for (const id of expected) counts.set(id, (counts.get(id) ?? 0) + 1);
  for (const id of seen) counts.set(id, (counts.get(id) ?? 0) - 1);
  for (const count of counts.values()) {
    if (count > 0) sums.lost += count;
    else sums.duplicated -= count;
  }
}

function parseOrUndefined(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (thrown) {
    if (thrown instanceof SyntaxError) return undefined;
    throw thrown;
  }
}

/** A line a killed process did not finish: it begins like one and does not end. The replacement's first line may follow on it. */
function isCutOff(text: string): boolean {
  return text.startsWith('{') && parseOrUndefined(text) === undefined;
}
