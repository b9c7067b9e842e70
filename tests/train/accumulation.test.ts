import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ModelConfig, runConfigSchema } from '../../common/config/run-config.ts';
import { RandomStream } from '../../common/random.ts';
import { type Engine, loadEngine } from '../../engine/index.ts';
import { SoloCollectives } from '../../worker/train/blocking-collectives.ts';
import type { LaneInput } from '../../worker/train/lane-trainer.ts';
import { newTrainer } from '../../worker/train/new-trainer.ts';
import { autoEngines } from '../support/engines.ts';

const SAMPLES = 12;
const SIDE = 32;
const CONTEXT = 8;
const MODEL: ModelConfig = {
  embedDim: 16,
  quickGelu: false,
  vision: { imageSize: SIDE, patchSize: 8, width: 32, layers: 2, headWidth: 16, mlpRatio: 4 },
  text: { contextLength: CONTEXT, vocabSize: 40, width: 32, heads: 2, layers: 2, mlpRatio: 4 },
};

function wholeBatch(): LaneInput {
  const random = new RandomStream('accumulation');
  const tokens = new Int32Array(SAMPLES * CONTEXT);
  for (let begin = 0; begin < tokens.length; begin += CONTEXT) {
    const length = 1 + random.integer(5);
    tokens[begin] = 38;
    for (let i = 1; i <= length; i++) tokens[begin + i] = 1 + random.integer(36);
    tokens[begin + length + 1] = 39;
  }
  return {
    lane: 0,
    pixels: new Uint8Array(SAMPLES * SIDE * SIDE * 3).map(() => random.integer(256)),
    tokens,
    seeds: new Uint32Array(SAMPLES).map(() => random.integer(2 ** 32)),
  };
}

describe.each(autoEngines)('accumulation on engine %s', (name) => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await loadEngine({ engine: name, threads: 1 });
  });
  afterAll(() => engine.close());

  /** One step over the whole batch in one lane: its loss and the summed gradient of every parameter. */
  function gradientsOf(objective: 'clip' | 'siglip', train: object) {
    const model = objective === 'siglip' ? { ...MODEL, initLogitBias: -10 } : MODEL;
    const config = runConfigSchema.parse({
      run: 'test',
      seed: 5,
      store: 'file:///unused',
      objective,
      model,
      data: { manifest: 'file:///unused' },
      train: { steps: 1, globalBatch: SAMPLES, lanes: 1, nonFinite: 'stop', ...train },
    });
    const made = newTrainer(config, model, engine);
    made.trainer.holdLanes(0, 1);
    const solo = new SoloCollectives(1, (target, source) => engine.addVectors(target, source));
    const { loss } = made.trainer.step(0, 0, [wholeBatch()], solo);
    const { slots } = made.trainer.layout;
    const gradient = Float32Array.from(made.trainer.reducedGradient);
    made.trainer.dispose();
    made.model.dispose();
    return { loss, slots, gradient };
  }

  it.each(['clip', 'siglip'] as const)(
    'in k micro-batches is the full batch to 1e-5 in every parameter, with patches dropped at random: %s',
    (objective) => {
      const full = gradientsOf(objective, { patchDropout: 0.5 });
      // Dropping patches is no rounding error.
      const all = gradientsOf(objective, {}).gradient;
      const norm = (values: Float32Array) => Math.hypot(...values);
      expect(norm(full.gradient.map((value, i) => value - all[i]!)) / norm(all)).toBeGreaterThan(0.01);
      const scalars = objective === 'siglip' ? ['logit_scale', 'logit_bias'] : ['logit_scale'];
      expect(full.slots.map((slot) => slot.name)).toEqual(expect.arrayContaining(scalars));
      for (const microBatch of [6, 4, 3, 1]) {
        const parts = gradientsOf(objective, { patchDropout: 0.5, microBatch });
        expect(Math.abs(parts.loss / full.loss - 1)).toBeLessThan(1e-5);
        for (const { name: parameter, offset, length } of full.slots) {
          const [theirs, ours] = [full, parts].map(({ gradient }) => gradient.subarray(offset, offset + length));
          const size = theirs!.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
          const worst = ours!.reduce((most, value, i) => Math.max(most, Math.abs(value - theirs![i]!)), 0);
          expect(size, parameter).toBeGreaterThan(0);
          // A parameter whose gradient is next to nothing (a key's bias) has no more digits than the sums behind it.
          expect(worst, `${parameter} in micro-batches of ${microBatch}`).toBeLessThan(1e-5 * Math.max(size, 0.12));
        }
      }
    },
  );

  it('encodes lanes twice to the same bits, with patches dropped at random', () => {
    const [once, twice] = [{}, { gradCache: true }].map((train) =>
      gradientsOf('clip', { patchDropout: 0.5, ...train }),
    );
    expect(twice!.gradient).toEqual(once!.gradient);
  });
});
