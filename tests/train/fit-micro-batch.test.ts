import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ModelConfig, type RunConfig, runConfigSchema } from '../../common/config/run-config.ts';
import { CoveyError } from '../../common/errors.ts';
import { allocationError, type Engine, loadEngine, tf } from '../../engine/index.ts';
import { SoloCollectives } from '../../worker/train/blocking-collectives.ts';
import { fitMicroBatch, halved } from '../../worker/train/fit-micro-batch.ts';
import type { LaneTrainer } from '../../worker/train/lane-trainer.ts';
import { newTrainer } from '../../worker/train/new-trainer.ts';
import { syntheticLanes } from '../../worker/train/synthetic-lanes.ts';

const MODEL: ModelConfig = {
  embedDim: 16,
  quickGelu: false,
  vision: { imageSize: 32, patchSize: 8, width: 32, layers: 2, headWidth: 16, mlpRatio: 4 },
  text: { contextLength: 16, vocabSize: 40, width: 32, heads: 2, layers: 2, mlpRatio: 4 },
};
const LANES = 3;
const LANE_BATCH = 12;

function configOf(train: object, change: object = {}) {
  return {
    run: 'test',
    seed: 5,
    store: 'file:///unused',
    model: MODEL,
    data: { manifest: 'file:///unused' },
    train: { steps: 9, globalBatch: LANES * LANE_BATCH, lanes: LANES, ...train },
    ...change,
  };
}

/** Path and message of what is wrong. */
function problemsOf(train: object, change: object = {}): string[] {
  const { error } = runConfigSchema.safeParse(configOf(train, change));
  return (error?.issues ?? []).map(({ path, message }) => `${path.join('.')} ${message}`);
}

describe('a failed allocation', () => {
  it('is told apart from other errors, whoever reports it', () => {
    for (const message of [
      'out of memory: cannot allocate 4398046511104 bytes for a tensor; use a smaller batch or model',
      'CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 79.10 GiB total capacity)',
      "[enforce fail at alloc_cpu.cpp:66] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.",
      'Array buffer allocation failed',
      'std::bad_alloc',
    ]) {
      expect(allocationError(new Error(message)).code).toBe('RESOURCE_EXHAUSTED');
    }
    expect(allocationError(new Error('size mismatch')).code).toBe('INTERNAL');
    const aborted = new CoveyError('ABORTED', 'gone while out of memory');
    expect(allocationError(aborted)).toBe(aborted);
  });
});

describe('halving', () => {
  it('takes the largest divisor of the lane that is at most half', () => {
    const sizes = [];
    for (let size = 12; size > 1; size = halved(size, 12)) sizes.push(size);
    expect(sizes).toEqual([12, 6, 3]);
    expect(halved(7, 7)).toBe(1);
  });
});

describe('train.microBatch is refused', () => {
  it('where it does not divide a lane, or needs what deterministic mode forbids', () => {
    expect(problemsOf({ microBatch: 5 })).toEqual([
      "train.microBatch must divide a lane's samples (train.globalBatch / train.lanes = 12), is 5",
    ]);
    expect(problemsOf({ microBatch: 4 })).toEqual([]);
    expect(problemsOf({ microBatch: 'auto' })[0]).toMatch(/must be a number with train.deterministic/);
    expect(problemsOf({ microBatch: 'auto', deterministic: false, memoryBytesMax: 1e6 })).toEqual([]);
    expect(problemsOf({ microBatch: 4, memoryBytesMax: 1e6 })).toEqual([
      'train.memoryBytesMax is for train.microBatch auto, which is 4',
    ]);
  });

  it("where a lane's samples see each other", () => {
    const change = { objective: 'simclr', loss: { projection: { batchNorm: true } } };
    expect(problemsOf({ microBatch: 4 }, change)[0]).toMatch(
      /must be a whole lane \(12\) with loss.projection.batchNorm/,
    );
    expect(problemsOf({ microBatch: 'auto', deterministic: false }, change)).toHaveLength(1);
    expect(problemsOf({ microBatch: 12 }, change)).toEqual([]);
  });
});

describe('on the best engine here', () => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await loadEngine({ engine: 'auto', threads: 1 });
  });
  afterAll(() => engine.close());

  const [lane] = syntheticLanes(MODEL, { lanes: 1, laneBatch: LANE_BATCH });

  /** A trainer for as long as `use` runs. */
  function withTrainer<T>(train: object, use: (trainer: LaneTrainer) => T): T {
    const config: RunConfig = runConfigSchema.parse(configOf(train));
    const { model, trainer } = newTrainer(config, MODEL, engine);
    try {
      return use(trainer);
    } finally {
      trainer.dispose();
      model.dispose();
    }
  }

  const choose = (trainer: LaneTrainer, memoryBytesMax?: number) =>
    fitMicroBatch({ laneBatch: LANE_BATCH, memoryBytesMax }, { trainer, engine, lane: lane! });

  /** A step of all lanes, and the most that its tensors held. */
  function step(trainer: LaneTrainer): { digest: string; peakBytes: number } {
    trainer.holdLanes(0, LANES);
    const solo = new SoloCollectives(LANES, (target, source) => engine.addVectors(target, source));
    engine.resetPeakMemory();
    trainer.step(0, 1e-3, syntheticLanes(MODEL, { lanes: LANES, laneBatch: LANE_BATCH }), solo);
    return { peakBytes: engine.memory().peakBytes, digest: trainer.weightsDigest() };
  }

  it('reports what cannot be allocated as RESOURCE_EXHAUSTED', () => {
    // A petabyte: more than an address space has room for beside what is in it.
    const thrown = (() => {
      try {
        tf.fill([2 ** 24, 2 ** 24], 1).dispose();
        return undefined;
      } catch (error) {
        return allocationError(error);
      }
    })();
    expect(thrown?.code).toBe('RESOURCE_EXHAUSTED');
    expect(thrown?.message).toMatch(/cannot allocate 1125899906842\d+ bytes.*train.microBatch/);
  });

  it('keeps the lane whole where it fits, and leaves no trace in the training', () => {
    const { digest } = withTrainer({}, step);
    const rehearsed = withTrainer({}, (trainer) => {
      expect(choose(trainer)).toMatchObject({ microBatch: LANE_BATCH, trials: [{ microBatch: LANE_BATCH }] });
      return step(trainer);
    });
    expect(rehearsed.digest).toBe(digest);
  });

  it('halves until the peak is within the budget, and the step that follows stays within it', () => {
    withTrainer({ gradCache: true }, (trainer) => {
      const [whole] = choose(trainer).trials;
      const budget = Math.round(0.6 * whole!.peakBytes!);
      const { microBatch, trials } = choose(trainer, budget);
      expect(microBatch).toBeLessThan(LANE_BATCH);
      expect(trainer.microBatch).toBe(microBatch);
      for (const { peakBytes } of trials.slice(0, -1)) expect(peakBytes).toBeGreaterThan(budget);
      expect(trials.at(-1)!.peakBytes).toBeLessThanOrEqual(budget);
      expect(step(trainer).peakBytes).toBeLessThanOrEqual(1.1 * budget);
    });
  });

  it('halves where an allocation fails, and gives up where one sample does not fit', () => {
    withTrainer({}, (trainer) => {
      const rehearse = trainer.rehearse.bind(trainer);
      // The rehearsal itself is real; only its failure on larger sizes is brought about.
      trainer.rehearse = (input) => {
        if (trainer.microBatch > 3) tf.fill([2 ** 24, 2 ** 24], 1).dispose();
        rehearse(input);
      };
      expect(choose(trainer).trials.map(({ microBatch, peakBytes }) => [microBatch, peakBytes === undefined])).toEqual([
        [12, true],
        [6, true],
        [3, false],
      ]);
      expect(() => choose(trainer, 1)).toThrow(/Cannot fit one sample into memory: tensors take \d+ bytes/);
    });
  });

  it('holds the activations of one lane with gradCache, of a part of one with microBatch', () => {
    const [all, one, part] = [{}, { gradCache: true }, { microBatch: 3 }].map((train) => withTrainer(train, step));
    expect(one!.digest).toBe(all!.digest);
    expect(one!.peakBytes).toBeLessThan(0.6 * all!.peakBytes);
    expect(part!.peakBytes).toBeLessThan(0.7 * one!.peakBytes);
  });
});
