import type { GemmAnswer, MemoryAnswer, Precision, StepsAnswer } from './protocol.ts';
import { type EngineRow, engineRow, sideResult } from './rows.ts';
import { closeAll, type Peer, type Side, startSides } from './sides.ts';
import type { StepCase } from './step-specs.ts';

const GEMM_SIZE = 1024;
const GEMM_REPETITIONS = 15;
/** Steps slower than this are warmed up once, others twice. */
const SLOW_MS = 3000;
const STEPS_MAX = 12;

export interface StepPlan {
  readonly precision: Precision;
  readonly threads: number;
  /** How long a row's timed steps may take, all sides together; at least `stepsMin` of each are timed. */
  readonly rowMs: number;
  readonly stepsMin: number;
}

/** One training step, side by side: medians of steps taken in turns, GEMM peak, peak of memory. */
export async function measureStep(testCase: StepCase, plan: StepPlan, peers: readonly Peer[]): Promise<EngineRow> {
  const { precision, threads } = plan;
  const sides = await startSides({ threads, precision, step: testCase.spec }, peers);
  try {
    const warmMs = await warmUp(sides);
    const gemms = await fastestGemms(sides, []);
    const timings = await takeTurns(sides, plannedSteps(warmMs, plan));
    const peaks = await fastestGemms(sides, gemms);
    const peak = Math.max(...peaks);
    const results = [];
    for (const [i, side] of sides.entries()) {
      const memory = await side.ask<MemoryAnswer>({ do: 'memory' });
      const { median } = sideResult(side, timings[i]!);
      results.push(
        sideResult(side, timings[i]!, {
          peakRss: memory.peakMiB,
          baseRss: memory.baseMiB,
          gemm: peaks[i]!,
          shareOfPeak: testCase.flops / median / 1e6 / peak,
        }),
      );
    }
    return engineRow({ case: testCase.label, precision, threads }, results, testCase.transformer);
  } finally {
    await closeAll(sides);
  }
}

/** The time of one step of all sides together. */
async function warmUp(sides: readonly Side[]): Promise<number> {
  let sum = 0;
  for (const side of sides) {
    let { wallMs } = await side.ask<StepsAnswer>({ do: 'steps', count: 1 });
    if (wallMs[0]! < SLOW_MS) ({ wallMs } = await side.ask<StepsAnswer>({ do: 'steps', count: 1 }));
    sum += wallMs[0]!;
  }
  return sum;
}

function plannedSteps(allSidesMs: number, { rowMs, stepsMin }: StepPlan): number {
  return Math.max(stepsMin, Math.min(STEPS_MAX, Math.floor(rowMs / allSidesMs)));
}

/** `count` steps of each side, two at a time; who is first changes from round to round. */
async function takeTurns(sides: readonly Side[], count: number) {
  const collected = sides.map(() => ({ wallMs: [] as number[], cpuMs: [] as number[] }));
  for (let round = 0, left = count; left > 0; round++) {
    const steps = Math.min(2, left);
    for (let turn = 0; turn < sides.length; turn++) {
      const i = (round + turn) % sides.length;
      const { wallMs, cpuMs } = await sides[i]!.ask<StepsAnswer>({ do: 'steps', count: steps });
      collected[i]!.wallMs.push(...wallMs);
      collected[i]!.cpuMs.push(...cpuMs);
    }
    left -= steps;
  }
  return collected;
}

/** GFLOP/s of each side, the better of now and `before`. */
async function fastestGemms(sides: readonly Side[], before: readonly number[]): Promise<number[]> {
  const found: number[] = [];
  for (const [i, side] of sides.entries()) {
    const { gflops } = await side.ask<GemmAnswer>({ do: 'gemm', size: GEMM_SIZE, count: GEMM_REPETITIONS });
    found.push(Math.max(gflops, before[i] ?? 0));
  }
  return found;
}
