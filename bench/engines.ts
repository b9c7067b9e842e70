import { CoveyError } from '../common/errors.ts';
import { ENGINE_NAMES, type EngineName } from '../engine/capabilities.ts';
import { loadEngine } from '../engine/index.ts';
import { resolveModelConfig } from '../models/model-config.ts';
import { type BenchOptions, type BenchRow, median } from './support/rows.ts';
import { syntheticTrainer } from './support/synthetic-trainer.ts';

const GLOBAL_BATCH = 16;

/**
 * The training step of the model `tiny` on every engine that loads here, one thread, fp32, in samples per second of processor time: other
 * work on the machine then hardly shows. The peer is the engine `cpu`.
 */
export async function run({ quick }: BenchOptions): Promise<BenchRow[]> {
  const rates = new Map<EngineName, number>();
  for (const name of ENGINE_NAMES) {
    try {
      rates.set(name, await samplesPerSecond(name, quick ? 1 : 5));
      process.stderr.write(`${name}: ${rates.get(name)!.toFixed(1)} samples/s\n`);
    } catch (thrown) {
      // An engine that is not installed has no row.
      if (!CoveyError.is(thrown, 'UNSUPPORTED')) throw thrown;
      process.stderr.write(`${thrown.message}\n`);
    }
  }
  const peer = rates.get('cpu') ?? null;
  return [...rates].map(([name, ours]) => ({
    case: `step, tiny, batch ${GLOBAL_BATCH}, fp32, 1 thread: engine ${name}`,
    ours,
    peer,
    ratio: peer === null ? null : ours / peer,
    unit: 'samples/s of processor time (peer: engine cpu)',
  }));
}

async function samplesPerSecond(name: EngineName, steps: number): Promise<number> {
  const engine = await loadEngine({ engine: name, threads: 1 });
  const trainer = syntheticTrainer(engine, resolveModelConfig('tiny'), { globalBatch: GLOBAL_BATCH });
  try {
    trainer.step();
    const seconds: number[] = [];
    for (let i = 0; i < steps; i++) {
      const before = process.cpuUsage();
      trainer.step();
      const { user, system } = process.cpuUsage(before);
      seconds.push((user + system) / 1e6);
    }
    return GLOBAL_BATCH / median(seconds);
  } finally {
    trainer.close();
    engine.close();
  }
}
