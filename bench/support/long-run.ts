import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { ModelConfig } from '../../common/config/run-config.ts';
import { torchBackend } from '../../engine/backend/torch-backend.ts';
import type { Engine } from '../../engine/index.ts';
import { syntheticTrainer } from './synthetic-trainer.ts';

/** Small enough for a thousand steps in seconds; every kind of op of the training step is in it. */
const MODEL: ModelConfig = {
  embedDim: 16,
  quickGelu: false,
  vision: { imageSize: 16, patchSize: 8, width: 32, layers: 1, headWidth: 16, mlpRatio: 4 },
  text: { contextLength: 8, vocabSize: 40, width: 32, heads: 2, layers: 1, mlpRatio: 4 },
};
const BATCH = 8;
const LANES = 2;
/** Between two looks at resident memory. */
const SAMPLE_STEPS = 25;

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

export interface LongRunOptions {
  readonly precision: 'fp32' | 'bf16';
  readonly recompute: 'none' | 'blocks';
  readonly steps: number;
  /** Where measuring begins: allocator, compiled code and heap have found their size by then. */
  readonly settledAfter: number;
}

/** Of the settled part of a run. A pair is the smallest and the largest count seen between two steps. */
export interface LongRunFigures {
  readonly tensors: readonly [number, number];
  /** Native handles; zeros where the engine has none. */
  readonly handles: readonly [number, number];
  readonly liveBytes: readonly [number, number];
  readonly peakBytes: number;
  /** Growth of resident memory over the settled part, by the least-squares line through it, bytes. */
  readonly residentGrowthBytes: number;
}

/** Trains a small model and watches its memory between steps. */
export function longRun(engine: Engine, options: LongRunOptions): LongRunFigures {
  const { steps, settledAfter, ...training } = options;
  const trainer = syntheticTrainer(engine, MODEL, {
    ...training,
    globalBatch: BATCH,
    lanes: LANES,
    learningRate: 1e-3,
  });
  const counts = { tensors: new Range(), handles: new Range(), liveBytes: new Range() };
  const resident: number[] = [];
  try {
    for (let step = 0; step < steps; step++) {
      if (step === settledAfter) engine.resetPeakMemory();
      trainer.step();
      if (step < settledAfter) continue;
      const { tensors, liveBytes } = engine.memory();
      counts.tensors.add(tensors);
      counts.liveBytes.add(liveBytes);
      counts.handles.add(engine.name === 'torch' ? torchBackend().addon.live() : 0);
      if (step % SAMPLE_STEPS === 0) {
        // Without it the figure would be the garbage that JavaScript has not yet looked at.
        collectGarbage();
        resident.push(process.memoryUsage.rss());
      }
    }
    return {
      tensors: counts.tensors.pair,
      handles: counts.handles.pair,
      liveBytes: counts.liveBytes.pair,
      peakBytes: engine.memory().peakBytes,
      residentGrowthBytes: slope(resident) * resident.length,
    };
  } finally {
    trainer.close();
  }
}

class Range {
  #low = Number.POSITIVE_INFINITY;
  #high = Number.NEGATIVE_INFINITY;

  add(value: number): void {
    this.#low = Math.min(this.#low, value);
    this.#high = Math.max(this.#high, value);
  }

  get pair(): readonly [number, number] {
    return [this.#low, this.#high];
  }
}

/** Of the least-squares line through values one apart. */
function slope(values: readonly number[]): number {
  const middle = (values.length - 1) / 2;
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  let products = 0;
  let squares = 0;
  values.forEach((value, index) => {
    products += (index - middle) * (value - mean);
    squares += (index - middle) ** 2;
  });
  return products / squares;
}
