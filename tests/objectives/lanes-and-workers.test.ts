import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ModelConfig, type RunConfig, runConfigSchema } from '../../common/config/run-config.ts';
import {
  type Engine,
  loadEngine,
  pixelsToTensor,
  recordForward,
  type Tensor,
  type Tensor2D,
  tf,
} from '../../engine/index.ts';
import type { ClipModel } from '../../models/clip/clip-model.ts';
import type { ViewModel } from '../../models/vision/view-model.ts';
import type { LaneRange } from '../../worker/collectives/lane-tree.ts';
import { newObjective } from '../../worker/objectives/new-objective.ts';
import type { TrainedModel } from '../../worker/objectives/objective.ts';
import type { StepResult } from '../../worker/train/lane-trainer.ts';
import { newTrainer } from '../../worker/train/new-trainer.ts';
import { autoEngines } from '../support/engines.ts';
import { LockstepWorld } from '../support/lockstep-world.ts';
import { MAE_CASES } from './mae-cases.ts';
import {
  type Batch,
  batchOf,
  type Case,
  GLOBAL_BATCH,
  LANES,
  laneOf,
  MODEL,
  rawConfig,
  WORLDS,
} from './objective-case.ts';
import { PROXY_CASES } from './proxy-cases.ts';
import { attractionLoss, clipLoss, siglipLoss, simclrLoss, supconLoss, supervisedLoss } from './references.ts';

const projected = (model: TrainedModel, pixels: Tensor) => (model as ViewModel).project(pixels, { training: true });

/** The two towers' embeddings and the scalars, by name. */
function pairs(model: TrainedModel, pixels: Tensor, { tokens }: Batch) {
  const clip = model as ClipModel;
  const [image, text] = [clip.encodeImage(pixels), clip.encodeText(tokens, GLOBAL_BATCH)];
  return { image, text, scalar: (name: string) => clip.parameter<Tensor>(name) };
}

/** Every output of the lanes one by one, put together: batch norms see each lane's views by themselves, the loss is over all of them. */
function byLane(pixels: Tensor, encode: (own: Tensor) => Tensor): Tensor2D {
  const b = GLOBAL_BATCH / LANES;
  const rows = (x: Tensor, begin: number) =>
    tf.slice(x, [begin, ...x.shape.slice(1).map(() => 0)], [b, ...x.shape.slice(1)]);
  const views = Array.from({ length: pixels.shape[0]! / GLOBAL_BATCH }, (): Tensor[] => []);
  for (let lane = 0; lane < LANES; lane++) {
    const own = views.map((_, view) => rows(pixels, view * GLOBAL_BATCH + lane * b));
    const z = encode(tf.concat(own, 0));
    for (const [view, list] of views.entries()) list.push(rows(z, view * b));
  }
  return tf.concat(views.flat(), 0) as Tensor2D;
}

const CASES: readonly Case[] = [
  {
    title: 'clip',
    objective: 'clip',
    reference: (model, pixels, batch) => {
      const { image, text, scalar } = pairs(model, pixels, batch);
      return clipLoss(image, text, scalar('logit_scale'));
    },
  },
  {
    title: 'siglip',
    objective: 'siglip',
    model: { initLogitBias: -10 },
    reference: (model, pixels, batch) => {
      const { image, text, scalar } = pairs(model, pixels, batch);
      return siglipLoss(image, text, scalar('logit_scale'), scalar('logit_bias'));
    },
  },
  {
    title: 'simclr',
    objective: 'simclr',
    loss: { temperature: 0.2 },
    reference: (model, pixels) => simclrLoss(projected(model, pixels), 0.2),
  },
  {
    title: 'simclr, with batch norm in the head and the sum of both directions',
    objective: 'simclr',
    loss: { temperature: 0.5, viewLoss: 'sum', projection: { batchNorm: true, hidden: 24, width: 8 } },
    unmoved: ['visual.ln_post.bias'],
    reference: (model, pixels) =>
      tf.mul(
        simclrLoss(
          byLane(pixels, (own) => projected(model, own)),
          0.5,
        ),
        2,
      ),
  },
  {
    title: 'simclr without negatives',
    objective: 'simclr',
    loss: { temperature: 0.5, negatives: 'none' },
    reference: (model, pixels) => attractionLoss(projected(model, pixels), 0.5),
  },
  {
    title: 'supcon',
    objective: 'supcon',
    loss: { temperature: 0.1, classes: 4 },
    reference: (model, pixels, { labels }) => supconLoss(projected(model, pixels), labels, 0.1),
  },
  {
    title: 'supervised, with label smoothing',
    objective: 'supervised',
    loss: { classes: 4, labelSmoothing: 0.1 },
    reference: (model, pixels, { labels }) =>
      supervisedLoss((model as ViewModel).classify(pixels, { training: true }), labels, 0.1),
  },
  {
    title: 'clip over a ResNet, whose batch norms see a lane',
    objective: 'clip',
    model: { vision: { kind: 'resnet', imageSize: 8, depth: 18, stem: 'cifar', width: 4 } },
    reference: (model, pixels, batch) => {
      const clip = model as ClipModel;
      const image = byLane(pixels, (own) => clip.encodeImage(own, { training: true }));
      return clipLoss(image, clip.encodeText(batch.tokens, GLOBAL_BATCH), clip.parameter<Tensor>('logit_scale'));
    },
  },
  {
    title: 'simclr over a ResNet, with batch norm in the head too',
    objective: 'simclr',
    loss: { temperature: 0.2, projection: { batchNorm: true, hidden: 24, width: 8 } },
    model: { vision: { kind: 'resnet', imageSize: 8, depth: 18, stem: 'cifar', width: 4 } },
    reference: (model, pixels) =>
      simclrLoss(
        byLane(pixels, (own) => projected(model, own)),
        0.2,
      ),
  },
  {
    title: "supervised over CLIP's ResNet",
    objective: 'supervised',
    loss: { classes: 4 },
    model: { vision: { kind: 'modified-resnet', imageSize: 32, blocks: [1, 1, 1, 1], width: 4, headWidth: 32 } },
    reference: (model, pixels, { labels }) =>
      supervisedLoss(
        byLane(pixels, (own) => (model as ViewModel).classify(own, { training: true })),
        labels,
        0,
      ),
  },
];

describe.each(autoEngines)('on engine %s', (name) => {
  /** Odd, so that the last batch is the first one again; too few to learn on the slow engine. */
  const steps = name !== 'torch' ? 3 : 5;
  let engine: Engine;
  beforeAll(async () => {
    engine = await loadEngine({ engine: name, threads: 1 });
  });
  afterAll(() => engine.close());

  const rawConfigOf = (one: Case, train: object) => rawConfig(one, { ...MODEL, ...one.model }, train);

  function configOf(one: Case, train: object = {}): { config: RunConfig; model: ModelConfig } {
    return { config: runConfigSchema.parse(rawConfigOf(one, train)), model: { ...MODEL, ...one.model } };
  }

  /** Whether the run refuses to take a lane in pieces. */
  const wholeLanes = (one: Case): boolean =>
    one.model?.vision?.kind !== undefined || !runConfigSchema.safeParse(rawConfigOf(one, { microBatch: 1 })).success;

  function referenceOf(one: Case) {
    const { config, model: modelConfig } = configOf(one);
    const { model } = newObjective(config, modelConfig, engine);
    const batch = batchOf(0, config, modelConfig.vision.imageSize);
    const { mean, std } = config.data;
    const { side } = batch;
    const rows = batch.pixels.length / (side * side * 3);
    const pixels = pixelsToTensor(batch.pixels, [rows, side, side, 3], { mean, std, precision: 'fp32' });
    const recording = recordForward(() => [one.reference(model, pixels, batch)]);
    const loss = recording.outputs[0]!.dataSync()[0]!;
    const gradients = new Map<string, Float32Array>();
    const variables = model.parameters.map(({ variable }) => variable);
    const seed = tf.scalar(1);
    recording.backward([seed], variables, (index, gradient) => {
      gradients.set(model.parameters[index]!.name, Float32Array.from(gradient.dataSync()));
    });
    tf.dispose([pixels, seed]);
    model.dispose();
    return { loss, gradients };
  }

  /** The workers of one world, stepping together. */
  function worldOf(one: Case, ranges: readonly LaneRange[], train: object = {}) {
    const { config, model } = configOf(one, train);
    const world = new LockstepWorld(LANES, ranges);
    const workers = ranges.map((range) => {
      const made = newTrainer(config, model, engine);
      made.trainer.holdLanes(range.begin, range.end);
      return made;
    });
    return {
      workers,
      step: (index: number, lr: number): StepResult[] => {
        const batch = batchOf(index, config, model.vision.imageSize);
        return world.run(
          workers.map(({ trainer }, rank) => (collectives) => {
            const { begin, end } = ranges[rank]!;
            const lanes = Array.from({ length: end - begin }, (_, i) => laneOf(batch, begin + i));
            return trainer.step(index, lr, lanes, collectives);
          }),
        );
      },
      dispose: () => {
        for (const { trainer, model: made } of workers) {
          trainer.dispose();
          made.dispose();
        }
      },
    };
  }

  const all = [...CASES, ...PROXY_CASES, ...MAE_CASES];
  // Convolutions without the addon would take minutes.
  const cases = name !== 'torch' ? all.filter(({ model }) => model?.vision?.kind === undefined) : all;
  describe.each(cases)('$title', (one) => {
    it('has the loss and every gradient of the plain full-batch reference with 1, 2 and 3 workers of uneven lanes', () => {
      const expected = referenceOf(one);
      for (const ranges of WORLDS) {
        const { workers, step, dispose } = worldOf(one, ranges);
        const results = step(0, 0);
        for (const [rank, { trainer }] of workers.entries()) {
          expect(Math.abs(results[rank]!.loss / expected.loss - 1)).toBeLessThan(1e-5);
          trainer.layout.slots.forEach(({ name: parameter, offset, length }) => {
            const ours = trainer.reducedGradient.subarray(offset, offset + length);
            const theirs = expected.gradients.get(parameter) ?? new Float32Array(length);
            let worst = 0;
            let size = 0;
            for (let i = 0; i < length; i++) {
              worst = Math.max(worst, Math.abs(ours[i]! / GLOBAL_BATCH - theirs[i]!));
              size = Math.max(size, Math.abs(theirs[i]!));
            }
            if (one.unmoved?.includes(parameter)) expect(size + worst).toBeLessThan(1e-5);
            else {
              const bound = 1e-5 * Math.max(size, 1e-2);
              expect(worst, `${parameter} with ${ranges.length} workers`).toBeLessThanOrEqual(bound);
            }
          });
          const reached = trainer.layout.slots.filter(({ name: parameter }) => expected.gradients.has(parameter));
          expect(reached.length).toBe(trainer.layout.slots.length);
        }
        dispose();
      }
    });

    it('has the same bits with 1, 2 and 3 workers, and learns', () => {
      const curves = WORLDS.map((ranges) => {
        const { workers, step, dispose } = worldOf(one, ranges);
        const rows: unknown[] = [];
        const losses: number[] = [];
        for (let index = 0; index < steps; index++) {
          const results = step(index % 2, 3e-3);
          losses.push(results[0]!.loss);
          const seen = results.map(({ loss, gradNorm, logitScale, metrics }, rank) => {
            return { loss, gradNorm, logitScale, metrics, digest: workers[rank]!.trainer.weightsDigest() };
          });
          for (const other of seen) expect(other).toEqual(seen[0]);
          rows.push(seen[0]);
        }
        dispose();
        if (steps > 3) expect(losses.at(-1)).toBeLessThan(losses[0]!);
        return rows;
      });
      expect(curves[1]).toEqual(curves[0]);
      expect(curves[2]).toEqual(curves[0]);
    });

    it('has the same bits where lanes are encoded twice, buffers and all', () => {
      const [plain, cached] = [{}, { gradCache: true }].map((train) => {
        const { workers, step, dispose } = worldOf(one, WORLDS[2]!, train);
        const rows = [0, 1, 2].map((index) => {
          const [{ loss, gradNorm, metrics }] = step(index, 3e-3) as [StepResult];
          return { loss, gradNorm, metrics, digest: workers[0]!.trainer.weightsDigest() };
        });
        dispose();
        return rows;
      });
      expect(cached).toEqual(plain);
    });

    it('accumulates chunks of a lane to the gradients of whole lanes, to the same bits in every world', () => {
      if (wholeLanes(one)) return;
      const gradientsOf = (ranges: readonly LaneRange[], train: object) => {
        const { workers, step, dispose } = worldOf(one, ranges, train);
        step(0, 0);
        const { trainer } = workers[0]!;
        const gradient = Float32Array.from(trainer.reducedGradient);
        dispose();
        return { slots: trainer.layout.slots, gradient };
      };
      const { slots, gradient: whole } = gradientsOf(WORLDS[0]!, {});
      const [chunked, ...others] = WORLDS.map((ranges) => gradientsOf(ranges, { microBatch: 1 }).gradient);
      for (const other of others) expect(other).toEqual(chunked);
      for (const { name: parameter, offset, length } of slots) {
        const [theirs, ours] = [whole, chunked!].map((all) => all.subarray(offset, offset + length));
        const size = theirs!.reduce((most, value) => Math.max(most, Math.abs(value)), 0.12);
        const worst = ours!.reduce((most, value, i) => Math.max(most, Math.abs(value - theirs![i]!)), 0);
        expect(worst, parameter).toBeLessThanOrEqual(1e-5 * size);
      }
    });

    it('leaves no tensor behind', () => {
      const before = tf.memory().numTensors;
      const train = wholeLanes(one) ? { gradCache: true } : { microBatch: 1 };
      const { step, dispose } = worldOf(one, WORLDS[2]!, train);
      step(0, 1e-3);
      const between = tf.memory().numTensors;
      step(1, 1e-3);
      expect(tf.memory().numTensors).toBe(between);
      dispose();
      expect(tf.memory().numTensors).toBe(before);
    });
  });
});
