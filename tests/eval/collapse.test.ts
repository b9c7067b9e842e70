import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { afterMeasurement, NO_ALARM } from '../../common/collapse.ts';
import { runConfigSchema } from '../../common/config/run-config.ts';
import { RandomStream } from '../../common/random.ts';
import { type Engine, loadEngine } from '../../engine/index.ts';
import { resolveModelConfig } from '../../models/model-config.ts';
import { SoloCollectives } from '../../worker/train/blocking-collectives.ts';
import type { LaneInput } from '../../worker/train/lane-trainer.ts';
import { newTrainer } from '../../worker/train/new-trainer.ts';

const SIDE = 16;
const BATCH = 32;
const LANES = 2;
const STEPS = 80;
const EVERY = 10;

/** Pictures of a few coloured waves; a view is one of them, lighter or darker, with noise. */
function lanesOf(step: number): LaneInput[] {
  const b = BATCH / LANES;
  return Array.from({ length: LANES }, (_, lane) => {
    const pixels = new Uint8Array(2 * b * SIDE * SIDE * 3);
    for (let row = 0; row < b; row++) {
      const sample = new RandomStream('wave', step, lane, row);
      const waves = Array.from({ length: 3 }, () => [
        sample.uniform(0.2, 1.2),
        sample.uniform(0.2, 1.2),
        sample.uniform(0, 6),
      ]);
      for (let view = 0; view < 2; view++) {
        const gain = sample.uniform(0.7, 1.3);
        const begin = (view * b + row) * SIDE * SIDE * 3;
        for (let i = 0; i < SIDE * SIDE * 3; i++) {
          const [fx, fy, phase] = waves[i % 3]!;
          const [x, y] = [Math.floor(i / 3) % SIDE, Math.floor(i / 3 / SIDE)];
          pixels[begin + i] = Math.min(
            255,
            gain * (110 + 90 * Math.sin(fx! * x + fy! * y + phase!) + sample.uniform(-15, 15)),
          );
        }
      }
    }
    return { lane, pixels, tokens: new Int32Array(0) };
  });
}

describe('a run of SimCLR', () => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await loadEngine({ engine: 'auto', threads: 1 });
  });
  afterAll(() => engine.close());

  function train(negatives: 'all' | 'none') {
    const model = {
      embedDim: 32,
      vision: { imageSize: SIDE, patchSize: 8, width: 64, layers: 2, headWidth: 32 },
      text: { contextLength: 8, vocabSize: 100, width: 32, heads: 1, layers: 1 },
    };
    const config = runConfigSchema.parse({
      run: 'collapse',
      store: 'file:///unused',
      objective: 'simclr',
      loss: { temperature: 0.2, negatives },
      model,
      data: { manifest: 'file:///unused' },
      train: {
        steps: STEPS,
        globalBatch: BATCH,
        lanes: LANES,
        optimizer: { lr: 1e-3, warmupSteps: 10, weightDecay: 0.1 },
      },
    });
    const made = newTrainer(config, resolveModelConfig(config.model), engine);
    made.trainer.holdLanes(0, LANES);
    const collectives = new SoloCollectives(LANES, (target, source) => engine.addVectors(target, source));
    const stdRatios: number[] = [];
    let alarm = NO_ALARM;
    let raised = false;
    try {
      for (let step = 0; step < STEPS; step++) {
        made.trainer.step(step, 1e-3, lanesOf(step), collectives);
        if ((step + 1) % EVERY !== 0) continue;
        const { measures } = made.trainer.embeddingHealth();
        stdRatios.push(measures['projection.std_ratio']!);
        alarm = afterMeasurement(alarm, measures);
        raised ||= alarm.collapsed.includes('projection');
      }
    } finally {
      made.trainer.dispose();
      made.model.dispose();
    }
    return { stdRatios, raised, stands: alarm.collapsed.length > 0 };
  }

  it('collapses without negatives, and the alarm says so', () => {
    const { stdRatios, stands } = train('none');
    expect(stdRatios.at(-1)).toBeLessThan(0.02);
    expect(stands).toBe(true);
  });

  it('spreads with them, and the alarm is never raised', () => {
    const { stdRatios, raised } = train('all');
    expect(stdRatios.at(-1)).toBeGreaterThan(0.5);
    expect(raised).toBe(false);
  });
});
