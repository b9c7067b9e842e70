import type { ModelConfig } from '../../common/config/run-config.ts';
import { presets } from '../../models/presets.ts';
import { median } from '../support/rows.ts';
import type { LanesSpec, MemoryAnswer, Precision, StepSpec, StepsAnswer } from './protocol.ts';
import type { EngineRow, SideResult } from './rows.ts';
import { closeAll, type Side, startOurs } from './sides.ts';
import { transformerCase } from './step-specs.ts';

const BATCH = 64;
const LANES = 8;
/** What is asked of two workers of one thread against one of two. */
const MUST_RATIO = 1.15;
const STEPS_PER_ROUND = 3;

/** CLIP with the image tower of the transformer row: D 256, L 6, T 65. */
const WIDE: ModelConfig = {
  embedDim: 256,
  quickGelu: false,
  vision: { imageSize: 32, patchSize: 4, width: 256, layers: 6, headWidth: 64, mlpRatio: 4 },
  text: { contextLength: 16, vocabSize: 4096, width: 256, heads: 4, layers: 2, mlpRatio: 4 },
};

interface Share {
  readonly label: string;
  /** Whether this is how workers train: the row that is held to the ratio. */
  readonly asWorkers: boolean;
  /** The step of a worker that has `batch` of the samples. */
  readonly spec: (batch: number) => StepSpec | LanesSpec;
}

const inLanes = (label: string, config: ModelConfig): Share => ({
  label: `two workers × 1 thread: ${label}, ${LANES / 2} lanes of ${BATCH / LANES} each`,
  asWorkers: true,
  spec: (batch) => ({ model: 'lanes', config, batch, lanes: (batch * LANES) / BATCH }),
});

const SHARES: readonly Share[] = [
  inLanes('CLIP tiny', presets['tiny']!),
  inLanes('CLIP D=256 L=6 T=65', WIDE),
  {
    label: `two processes × 1 thread: half of ${transformerCase(BATCH).label} each, as one batch`,
    asWorkers: false,
    spec: (batch) => transformerCase(batch).spec,
  },
];

/**
 * Two workers of one thread, each with half of the samples, against one worker of two threads with all of them: samples per second. No
 * gradients are exchanged; that share of a step is measured by bench/step. Workers train in lanes, whatever their number; the last row
 * does without, to show what the engine alone gains.
 */
export async function measureWorkers(precision: Precision, rounds: number): Promise<EngineRow[]> {
  const rows: EngineRow[] = [];
  for (const share of SHARES) rows.push(await measureShare(share, precision, rounds));
  return rows;
}

async function measureShare({ label, asWorkers, spec }: Share, precision: Precision, rounds: number) {
  const sides: Side[] = [];
  const start = async (batch: number, threads: number) =>
    sides.push(await startOurs({ threads, precision, step: spec(batch) }, true));
  try {
    await start(BATCH, 2);
    await start(BATCH / 2, 1);
    await start(BATCH / 2, 1);
    const [one, ...two] = sides as [Side, Side, Side];
    const single: number[] = [];
    const together: number[] = [];
    for (let round = 0; round <= rounds; round++) {
      const steps = { do: 'steps', count: STEPS_PER_ROUND } as const;
      const alone = (await one.ask<StepsAnswer>(steps)).wallMs;
      const both = await Promise.all(two.map((side) => side.ask<StepsAnswer>(steps)));
      // The first round warms up.
      if (round === 0) continue;
      single.push(BATCH / (median(alone) / 1000));
      together.push(both.reduce((sum, { wallMs }) => sum + BATCH / 2 / (median(wallMs) / 1000), 0));
    }
    const ours = result('two workers', two[0]!.version, together, await peakOf(two));
    const peer = result('one worker', one.version, single, await peakOf([one]));
    const ratio = ours.median / peer.median;
    return {
      case: label,
      precision,
      threads: 2,
      unit: 'samples/s',
      ours,
      peers: [peer],
      ratio,
      cpuRatio: null,
      memoryRatio: null,
      verdict: !asWorkers ? 'none' : ratio >= MUST_RATIO ? 'must' : 'short',
      note: asWorkers
        ? `samples/s against one worker × 2 threads with all lanes; must: ${MUST_RATIO}`
        : 'samples/s against one process × 2 threads; not how workers train',
    } satisfies EngineRow;
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
