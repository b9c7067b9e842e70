import { median } from '../support/rows.ts';
import type { MemoryAnswer, Precision, StepsAnswer } from './protocol.ts';
import type { EngineRow, SideResult } from './rows.ts';
import { closeAll, type Side, startOurs } from './sides.ts';
import { type StepCase, transformerCase } from './step-specs.ts';

const BATCH = 64;
/** What the issue asks: two workers of one thread against one of two. */
const MUST_RATIO = 1.15;

/**
 * Two workers of one thread, each with half of the batch, against one worker of two threads with all of it: samples per second. No
 * gradients are exchanged; that share of a step is measured by bench/step.
 */
export async function measureWorkers(precision: Precision, rounds: number): Promise<EngineRow> {
  const whole = transformerCase(BATCH);
  const half = transformerCase(BATCH / 2);
  const sides: Side[] = [];
  const start = async (testCase: StepCase, threads: number) =>
    sides.push(await startOurs({ threads, precision, step: testCase.spec }, true));
  try {
    await start(whole, 2);
    await start(half, 1);
    await start(half, 1);
    const [one, ...two] = sides as [Side, Side, Side];
    const single: number[] = [];
    const together: number[] = [];
    for (let round = 0; round <= rounds; round++) {
      const alone = (await one.ask<StepsAnswer>({ do: 'steps', count: 3 })).wallMs;
      const both = await Promise.all(two.map((side) => side.ask<StepsAnswer>({ do: 'steps', count: 3 })));
      // The first round warms up.
      if (round === 0) continue;
      single.push(BATCH / (median(alone) / 1000));
      together.push(both.reduce((sum, { wallMs }) => sum + BATCH / 2 / (median(wallMs) / 1000), 0));
    }
    const ours = result('two workers', two[0]!.version, together, await peakOf(two));
    const peer = result('one worker', one.version, single, await peakOf([one]));
    const ratio = ours.median / peer.median;
    return {
      case: `two workers × 1 thread, half of ${whole.label} each`,
      precision,
      threads: 2,
      unit: 'samples/s',
      ours,
      peers: [peer],
      ratio,
      cpuRatio: null,
      memoryRatio: null,
      verdict: ratio >= MUST_RATIO ? 'must' : 'short',
      note: `samples/s against one worker × 2 threads; must: ${MUST_RATIO}`,
    };
  } finally {
    await closeAll(sides);
  }
}

async function peakOf(sides: readonly Side[]): Promise<number> {
  let sum = 0;
  for (const side of sides) sum += (await side.ask<MemoryAnswer>({ do: 'memory' })).peakMiB;
  return sum;
}

function result(name: string, version: string, samplesPerSecond: readonly number[], peakRss: number): SideResult {
  return {
    name,
    version,
    median: median(samplesPerSecond),
    min: Math.min(...samplesPerSecond),
    cpu: null,
    peakRss,
    baseRss: null,
    gemm: null,
    shareOfPeak: null,
  };
}
