import { loadEngine } from '../../engine/index.ts';
import { resolveModelConfig } from '../../models/model-config.ts';
import { type BenchRow, median } from '../support/rows.ts';
import { type SyntheticTrainer, syntheticTrainer } from '../support/synthetic-trainer.ts';

const MIB = 2 ** 20;
const LANES = 4;
/** ViT-B/32 with half the width and half the depth: a step of it takes seconds on two cores. */
const MODEL = {
  preset: 'ViT-B-32',
  embedDim: 256,
  vision: { width: 384, layers: 6 },
  text: { width: 256, heads: 4, layers: 6 },
};

interface Measured {
  readonly name: string;
  readonly trainer: SyntheticTrainer;
  readonly ms: number[];
  readonly cpuMs: number[];
  peakBytes: number;
}

/** A step of one worker with four lanes of half a ViT-B/32, in one pass, in two, and in two with half lanes: time, and the most that tensors held. */
export async function gradCacheRows(threads: number, quick: boolean): Promise<BenchRow[]> {
  const engine = await loadEngine({ engine: 'torch', threads });
  const model = resolveModelConfig(MODEL);
  const globalBatch = quick ? 16 : 32;
  const common = { globalBatch, lanes: LANES, captionTokens: 32 };
  const measured = [
    { name: 'one pass', options: {} },
    { name: 'gradCache', options: { gradCache: true } },
    { name: 'microBatch of half a lane', options: { microBatch: globalBatch / LANES / 2 } },
  ].map(
    ({ name, options }): Measured => ({
      name,
      trainer: syntheticTrainer(engine, model, { ...common, ...options }),
      ms: [],
      cpuMs: [],
      peakBytes: 0,
    }),
  );
  for (let round = 0; round < (quick ? 3 : 6); round++) {
    for (const one of measured) {
      engine.resetPeakMemory();
      const before = engine.memory().liveBytes;
      const [began, cpu] = [performance.now(), process.cpuUsage()];
      one.trainer.step();
      // The first step of each meets its shapes for the first time.
      if (round > 0) {
        one.ms.push(performance.now() - began);
        const { user, system } = process.cpuUsage(cpu);
        one.cpuMs.push((user + system) / 1000);
      }
      one.peakBytes = engine.memory().peakBytes - before;
    }
  }
  for (const { trainer } of measured) trainer.close();
  engine.close();
  const [onePass, ...others] = measured;
  const label = `half a ViT-B/32, batch ${globalBatch} in ${LANES} lanes`;
  return others.flatMap(({ name, ms, cpuMs, peakBytes }): BenchRow[] => {
    const [ours, peer] = [median(ms), median(onePass!.ms)];
    const [oursCpu, peerCpu] = [median(cpuMs), median(onePass!.cpuMs)];
    const [oursMib, peerMib] = [peakBytes / MIB, onePass!.peakBytes / MIB];
    return [
      { case: `${name}: step, ${label}`, ours, peer, ratio: peer / ours, unit: 'ms' },
      {
        case: `${name}: CPU time of a step, ${label}`,
        ours: oursCpu,
        peer: peerCpu,
        ratio: peerCpu / oursCpu,
        unit: 'ms',
      },
      {
        case: `${name}: tensors of a step, ${label}`,
        ours: oursMib,
        peer: peerMib,
        ratio: peerMib / oursMib,
        unit: 'MiB',
      },
    ];
  });
}
