import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ModelConfig, type RunConfig, runConfigSchema } from '../../common/config/run-config.ts';
import { RandomStream } from '../../common/random.ts';
import { type Engine, loadEngine, pixelsToTensor, recordForward, type Tensor, tf } from '../../engine/index.ts';
import type { ClipModel } from '../../models/clip/clip-model.ts';
import type { ViewModel } from '../../models/vision/view-model.ts';
import type { LaneRange } from '../../worker/collectives/lane-tree.ts';
import { newObjective } from '../../worker/objectives/new-objective.ts';
import type { TrainedModel } from '../../worker/objectives/objective.ts';
import { OBJECTIVE_INPUTS } from '../../worker/objectives/objective-inputs.ts';
import type { LaneInput } from '../../worker/train/lane-encoder.ts';
import { newTrainer } from '../../worker/train/new-trainer.ts';
import { LockstepWorld } from '../support/lockstep-world.ts';
import { clipLoss, simclrLoss, supervisedLoss } from './references.ts';

const LANES = 3;
const LANE_BATCH = 4;
const GLOBAL_BATCH = LANES * LANE_BATCH;
const SIDE = 32;
const CONTEXT = 4;
const PICTURE = SIDE * SIDE * 3;
const MODEL: ModelConfig = {
  embedDim: 16,
  quickGelu: false,
  vision: {
    kind: 'modified-resnet',
    imageSize: SIDE,
    blocks: [1, 1, 1, 1],
    width: 4,
    headWidth: 32,
    batchNorm: 'sync',
  },
  text: { contextLength: CONTEXT, vocabSize: 40, width: 32, heads: 2, layers: 1, mlpRatio: 2 },
};
/** Lanes of one, two and three workers. */
const WORLDS: readonly (readonly LaneRange[])[] = [
  [{ begin: 0, end: 3 }],
  [
    { begin: 0, end: 2 },
    { begin: 2, end: 3 },
  ],
  [0, 1, 2].map((begin) => ({ begin, end: begin + 1 })),
];

interface Case {
  readonly objective: 'clip' | 'simclr' | 'supervised';
  readonly loss: object;
  /** The plain loss of the whole batch in one forward. */
  readonly reference: (model: TrainedModel, pixels: Tensor, batch: Batch) => Tensor;
}

const TRAINING = { training: true };
const CASES: readonly Case[] = [
  {
    objective: 'clip',
    loss: {},
    reference: (model, pixels, { tokens }) => {
      const clip = model as ClipModel;
      const text = clip.encodeText(tokens, GLOBAL_BATCH);
      return clipLoss(clip.encodeImage(pixels, TRAINING), text, clip.parameter<Tensor>('logit_scale'));
    },
  },
  {
    objective: 'simclr',
    loss: { temperature: 0.5, projection: { batchNorm: true, hidden: 24, width: 8 } },
    reference: (model, pixels) => simclrLoss((model as ViewModel).project(pixels, TRAINING), 0.5),
  },
  {
    objective: 'supervised',
    loss: { classes: 4 },
    reference: (model, pixels, { labels }) =>
      supervisedLoss((model as ViewModel).classify(pixels, TRAINING), labels, 0),
  },
];

interface Batch {
  /** [views, N, side, side, 3] */
  readonly pixels: Uint8Array;
  readonly tokens: Int32Array;
  readonly labels: Int32Array;
}

function batchOf(step: number, objective: Case['objective']): Batch {
  const random = new RandomStream('synchronised', step);
  const { views, captions, labels } = OBJECTIVE_INPUTS[objective];
  return {
    pixels: new Uint8Array(views * GLOBAL_BATCH * PICTURE).map(() => random.integer(256)),
    tokens: new Int32Array(captions ? GLOBAL_BATCH * CONTEXT : 0).map(
      (_, at) => [38, 1 + random.integer(36), 39][at % CONTEXT] ?? 0,
    ),
    labels: new Int32Array(labels ? GLOBAL_BATCH : 0).map(() => random.integer(4)),
  };
}

function laneOf({ pixels, tokens, labels }: Batch, lane: number): LaneInput {
  const views = pixels.length / (GLOBAL_BATCH * PICTURE);
  const own = new Uint8Array(views * LANE_BATCH * PICTURE);
  for (let view = 0; view < views; view++) {
    const begin = (view * GLOBAL_BATCH + lane * LANE_BATCH) * PICTURE;
    own.set(pixels.subarray(begin, begin + LANE_BATCH * PICTURE), view * LANE_BATCH * PICTURE);
  }
  const ofLane = (values: Int32Array) =>
    values.subarray((lane * values.length) / LANES, ((lane + 1) * values.length) / LANES);
  return { lane, pixels: own, tokens: ofLane(tokens), labels: ofLane(labels) };
}

describe('batch norm over all lanes of all workers', () => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await loadEngine({ engine: 'auto', threads: 1 });
  });
  afterAll(() => engine.close());

  const configOf = ({ objective, loss }: Case): RunConfig =>
    runConfigSchema.parse({
      run: 'test',
      seed: 5,
      store: 'file:///unused',
      objective,
      loss,
      model: MODEL,
      data: { manifest: 'file:///unused', mean: [0.5, 0.4, 0.3], std: [0.2, 0.25, 0.3] },
      train: { steps: 9, globalBatch: GLOBAL_BATCH, lanes: LANES, nonFinite: 'stop' },
    });

  /** One process, the whole batch in one forward: the plain batch norm. */
  function referenceOf(one: Case) {
    const config = configOf(one);
    const { model } = newObjective(config, MODEL, engine);
    const batch = batchOf(0, one.objective);
    const { mean, std } = config.data;
    const rows = batch.pixels.length / PICTURE;
    const pixels = pixelsToTensor(batch.pixels, [rows, SIDE, SIDE, 3], { mean, std, precision: 'fp32' });
    const recording = recordForward(() => [one.reference(model, pixels, batch)]);
    const loss = recording.outputs[0]!.dataSync()[0]!;
    const gradients = new Map<string, Float32Array>();
    const seed = tf.scalar(1);
    const variables = model.parameters.map(({ variable }) => variable);
    recording.backward([seed], variables, (index, gradient) => {
      gradients.set(model.parameters[index]!.name, Float32Array.from(gradient.dataSync()));
    });
    const statistics = new Float32Array(model.statistics!.length);
    model.statistics!.read(statistics);
    tf.dispose([pixels, seed]);
    model.dispose();
    return { loss, gradients, statistics };
  }

  function worldOf(one: Case, ranges: readonly LaneRange[]) {
    const world = new LockstepWorld(LANES, ranges);
    const workers = ranges.map((range) => {
      const made = newTrainer(configOf(one), MODEL, engine);
      made.trainer.holdLanes(range.begin, range.end);
      return made;
    });
    return {
      workers,
      step: (index: number, lr: number) => {
        const batch = batchOf(index, one.objective);
        return world.run(
          workers.map(({ trainer }, rank) => (collectives) => {
            const { begin, end } = ranges[rank]!;
            const lanes = Array.from({ length: end - begin }, (_, i) => laneOf(batch, begin + i));
            return trainer.step(index, lr, lanes, collectives);
          }),
        );
      },
      dispose: () => {
        for (const { trainer, model } of workers) {
          trainer.dispose();
          model.dispose();
        }
      },
    };
  }

  it.each(CASES)(
    '$objective: has the loss, every gradient and the statistics of one process, and the same bits with 1, 2 and 3 workers',
    (one) => {
      const expected = referenceOf(one);
      const before = tf.memory().numTensors;
      const seen = WORLDS.map((ranges) => {
        const { workers, step, dispose } = worldOf(one, ranges);
        const between = tf.memory().numTensors;
        const { loss } = step(0, 1e-2)[0]!;
        expect(Math.abs(loss / expected.loss - 1)).toBeLessThan(1e-5);
        const { trainer } = workers[0]!;
        const { slots, totalFloats } = trainer.layout;
        let [differences, squares] = [0, 0];
        for (const { name, offset, length } of slots) {
          const theirs = expected.gradients.get(name)!;
          const ours = trainer.reducedGradient.subarray(offset, offset + length).map((sum) => sum / GLOBAL_BATCH);
          const errors = theirs.map((value, i) => Math.abs(ours[i]! - value));
          differences += errors.reduce((sum, error) => sum + error ** 2, 0);
          squares += theirs.reduce((sum, value) => sum + value ** 2, 0);
          // Small next to others, a gradient shows the rounding that 20 normalisations of few values blow up.
          const size = theirs.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-2);
          expect(Math.max(...errors), name).toBeLessThanOrEqual((engine.name === 'torch' ? 5e-5 : 1e-4) * size);
        }
        expect(Math.sqrt(differences / squares)).toBeLessThan(1e-5);
        const { statistics } = expected;
        const sums = trainer.reducedGradient.subarray(totalFloats - statistics.length, totalFloats);
        statistics.forEach((value, i) => {
          expect(Math.abs(sums[i]! / LANES - value)).toBeLessThan(1e-5 * Math.max(1, Math.abs(value)));
        });
        step(1, 1e-2);
        expect(tf.memory().numTensors).toBe(between);
        const digests = workers.map(({ trainer: each }) => each.weightsDigest());
        expect(new Set(digests).size).toBe(1);
        dispose();
        expect(tf.memory().numTensors).toBe(before);
        return { loss, digest: digests[0] };
      });
      expect(seen[1]).toEqual(seen[0]);
      expect(seen[2]).toEqual(seen[0]);
    },
    180_000,
  );
});
