import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runConfigSchema } from '../../common/config/run-config.ts';
import { RandomStream } from '../../common/random.ts';
import { type Engine, loadEngine, pixelsToTensor, recordForward, tf } from '../../engine/index.ts';
import { KeyQueue } from '../../models/vision/key-queue.ts';
import type { MomentumModel } from '../../models/vision/momentum-model.ts';
import { ViewModel } from '../../models/vision/view-model.ts';
import type { LaneRange } from '../../worker/collectives/lane-tree.ts';
import type { TrainedModel } from '../../worker/objectives/objective.ts';
import type { LaneTrainer } from '../../worker/train/lane-trainer.ts';
import { newTrainer } from '../../worker/train/new-trainer.ts';
import { StateView, stateBytes } from '../../worker/train/state-layout.ts';
import { autoEngines } from '../support/engines.ts';
import { LockstepWorld } from '../support/lockstep-world.ts';
import {
  CASES,
  type Case,
  GLOBAL_BATCH,
  LANES,
  LR,
  laneOf,
  MEAN,
  MODEL,
  picturesOf,
  RESNET,
  SEED,
  SIDE,
  STD,
  STEPS,
} from './moco-cases.ts';
import { WORLDS } from './objective-case.ts';
import { type MocoSettings, PlainMoco } from './plain-moco.ts';

const KEY_OPTIONS = { seed: SEED, precision: 'fp32', quickGelu: false, trainable: false } as const;

function stateOf(trainer: LaneTrainer, step: number): StateView {
  const { layout, bufferFloats, stateSections } = trainer;
  const all = { parameterFloats: layout.parameterFloats, bufferFloats, stateSections };
  const view = new StateView(new SharedArrayBuffer(stateBytes(all)), all);
  trainer.exportState(view, step);
  return view;
}

function buffersOf(model: TrainedModel): Map<string, Float32Array> {
  return new Map((model.buffers ?? []).map(({ name, variable }) => [name, variable.dataSync<'float32'>().slice()]));
}

/** ‖ours − theirs‖ against ‖theirs‖, or against that of vectors whose values are `least`. */
function distance(ours: ArrayLike<number>, theirs: ArrayLike<number>, least = 1e-2): number {
  let [difference, size] = [0, 0];
  for (let i = 0; i < theirs.length; i++) {
    difference += (ours[i]! - theirs[i]!) ** 2;
    size += theirs[i]! ** 2;
  }
  return Math.sqrt(difference / Math.max(size, theirs.length * least ** 2));
}

describe.each(autoEngines)('on engine %s', (name) => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await loadEngine({ engine: name, threads: 1 });
  });
  afterAll(() => engine.close());

  function trainerOf({ objective, moco, vision = MODEL.vision, train }: Case, more: object = {}) {
    const model = { ...MODEL, vision };
    const config = runConfigSchema.parse({
      run: 'test',
      seed: SEED,
      store: 'file:///unused',
      objective,
      loss: { moco },
      model,
      data: { manifest: 'file:///unused', mean: MEAN, std: STD },
      train: {
        steps: STEPS,
        globalBatch: GLOBAL_BATCH,
        lanes: LANES,
        optimizer: { name: 'sgd', momentum: 0, weightDecay: 0 },
        ...train,
        ...more,
      },
    });
    return newTrainer(config, model, engine);
  }

  interface WorldOptions {
    readonly from?: StateView;
    readonly train?: object;
  }

  interface World {
    readonly workers: readonly { readonly model: TrainedModel; readonly trainer: LaneTrainer }[];
    step(index: number): readonly { readonly loss: number; readonly row: object }[];
    dispose(): void;
  }

  function worldOf(one: Case, ranges: readonly LaneRange[], { from, train = {} }: WorldOptions = {}): World {
    const world = new LockstepWorld(LANES, ranges);
    const workers = ranges.map((range) => {
      const made = trainerOf(one, train);
      made.trainer.holdLanes(range.begin, range.end);
      if (from) made.trainer.importState(from);
      return made;
    });
    return {
      workers,
      step: (index) => {
        const results = world.run(
          workers.map(({ trainer }, rank) => (collectives) => {
            const { begin, end } = ranges[rank]!;
            const lanes = Array.from({ length: end - begin }, (_, i) => laneOf(index, begin + i));
            return trainer.step(index, LR, lanes, collectives);
          }),
        );
        return results.map(({ loss, gradNorm, metrics }, rank) => {
          const digest = workers[rank]!.trainer.weightsDigest();
          return { loss, row: { loss, gradNorm, metrics, digest } };
        });
      },
      dispose: () => {
        for (const { trainer, model } of workers) {
          trainer.dispose();
          model.dispose();
        }
      },
    };
  }

  /** A plain loop in one process over the same pictures, with models of its own. */
  function plainOf(one: Case, settings: MocoSettings): PlainMoco {
    const { trainer, model } = trainerOf(one);
    trainer.dispose();
    const keyBackbone = new ViewModel(MODEL.vision, { kind: 'classifier', classes: 2 }, { ...KEY_OPTIONS });
    const modules = { model: model as MomentumModel, keyBackbone, globalBatch: GLOBAL_BATCH, lanes: LANES, lr: LR };
    return new PlainMoco(settings, modules);
  }

  function pixelsOf(step: number) {
    const shape = [2 * GLOBAL_BATCH, SIDE, SIDE, 3] as [number, number, number, number];
    return pixelsToTensor(picturesOf(step), shape, { mean: [...MEAN], std: [...STD], precision: 'fp32' });
  }

  // Eighteen layers of convolutions take minutes without the addon, and show nothing more.
  const cases = name !== 'torch' ? CASES.filter(({ vision }) => vision !== RESNET) : CASES;

  describe.each(cases)('$title', (one) => {
    const { plain: settings } = one;
    it.runIf(settings)(
      'has the losses, gradients, key encoder and queue of a plain loop with 1, 2 and 3 workers',
      () => {
        // The slow engine shows the arithmetic once; who holds what is the same code.
        const worlds = (name !== 'torch' ? WORLDS.slice(2) : WORLDS).map((ranges) => worldOf(one, ranges));
        const plain = plainOf(one, settings!);
        for (let index = 0; index < STEPS; index++) {
          const pixels = pixelsOf(index);
          const expected = plain.step(index, pixels);
          pixels.dispose();
          // A bias's gradient is what is left of many that all but cancel: their size is that of the others.
          const least = 0.1 * Math.max(...[...expected.gradients.values()].flatMap((one) => [...one].map(Math.abs)));
          // On wasm the order of sums depends on the shape, and a step begins with the rounding of those before it.
          const tolerance = name === 'torch' ? 1e-5 : 1e-5 * (index + 1);
          for (const { step, workers } of worlds) {
            const [first] = step(index);
            // Near zero it is the plain softmax that has no more digits.
            expect(distance([first!.loss], [expected.loss], 0.1)).toBeLessThan(1e-5);
            const { trainer, model } = workers[0]!;
            for (const { name: parameter, offset, length } of trainer.layout.slots) {
              const ours = trainer.reducedGradient.subarray(offset, offset + length).map((sum) => sum / GLOBAL_BATCH);
              const where = `${parameter} at step ${index} with ${workers.length} workers`;
              expect(distance(ours, expected.gradients.get(parameter)!, least), where).toBeLessThan(tolerance);
            }
            const buffers = buffersOf(model);
            const wanted = plain.buffersBefore(index + 1);
            expect([...buffers.keys()].sort()).toEqual([...wanted.keys()].sort());
            for (const [key, values] of wanted) expect(distance(buffers.get(key)!, values), key).toBeLessThan(1e-5);
          }
        }
        plain.dispose();
        for (const world of worlds) world.dispose();
      },
    );

    it('has the same bits, buffers included, at every world size, and from a state in mid-run', () => {
      const whole = worldOf(one, WORLDS[0]!);
      const rows = Array.from({ length: STEPS }, (_, index) => whole.step(index)[0]!.row);
      const end = stateOf(whole.workers[0]!.trainer, STEPS).bytes;
      whole.dispose();
      const half = worldOf(one, WORLDS[1]!);
      const seen = [0, 1].map((index) => half.step(index));
      const middle = stateOf(half.workers[1]!.trainer, 2);
      half.dispose();
      const rest = worldOf(one, WORLDS[2]!, { from: middle });
      for (let index = 2; index < STEPS; index++) seen.push(rest.step(index));
      for (const [index, results] of seen.entries()) {
        for (const { row } of results) expect(row).toEqual(rows[index]);
      }
      for (const { trainer } of rest.workers) expect(stateOf(trainer, STEPS).bytes).toEqual(end);
      rest.dispose();
    });

    it('has the same bits where lanes are encoded twice', () => {
      const rows = [{}, { gradCache: true }].map((train) => {
        const { step, dispose } = worldOf(one, WORLDS[1]!, { train });
        const seen = [0, 1, 2].map((index) => step(index)[0]!.row);
        dispose();
        return seen;
      });
      expect(rows[1]).toEqual(rows[0]);
    });

    it('leaves no tensor behind', () => {
      const before = tf.memory().numTensors;
      const { step, dispose } = worldOf(one, WORLDS[2]!);
      step(0);
      const between = tf.memory().numTensors;
      step(1);
      expect(tf.memory().numTensors).toBe(between);
      dispose();
      expect(tf.memory().numTensors).toBe(before);
    });

    it('holds nothing of the key encoder for the backward', () => {
      const { trainer, model } = trainerOf(one);
      const pixels = pixelsOf(0);
      const momentum = model as MomentumModel;
      const count = (f: () => tf.Tensor[]) => {
        const before = tf.memory().numTensors;
        const recording = recordForward(f);
        const held = tf.memory().numTensors - before;
        recording.dispose();
        return held;
      };
      const alone = count(() => [momentum.query.project(pixels, { training: true })]);
      const beside = count(() => [momentum.query.project(pixels, { training: true }), momentum.keys(pixels)]);
      expect(beside).toBe(alone + 1);
      pixels.dispose();
      trainer.dispose();
      model.dispose();
    });
  });

  describe.each([
    { title: 'a ResNet', objective: 'moco-v2', moco: { queue: 96 }, vision: RESNET },
    { title: "batch norm in v2's head", objective: 'moco-v2', moco: { queue: 96, hidden: 24, batchNorm: true } },
    { title: "v3's heads", objective: 'moco-v3', moco: { hidden: 24, width: 16 } },
  ] as const)('a key, with $title', ({ objective, moco, vision }) => {
    it('is a function of its picture and the state: what else is in its lane does not change a bit', () => {
      const one = { title: '', objective, moco, ...(vision ? { vision } : {}) };
      const { workers, step, dispose } = worldOf(one, WORLDS[0]!);
      // So that the running statistics are not those that every batch norm begins with.
      step(0);
      const model = workers[0]!.model as MomentumModel;
      const random = new RandomStream('leak');
      const size = SIDE * SIDE * 3;
      const lane = new Float32Array(4 * size).map(() => random.normal());
      const others = lane.map((value, at) => (at < size ? value : random.normal(1, 2)));
      const first = (encode: (x: tf.Tensor) => tf.Tensor2D) =>
        [lane, others].map((values) =>
          tf.tidy(() => tf.slice(encode(tf.tensor4d(values, [4, SIDE, SIDE, 3])), 0, 1).dataSync<'float32'>()),
        );
      const [key, keyAmongOthers] = first((x) => model.keys(x));
      expect(keyAmongOthers).toEqual(key);
      // Of a query the same cannot be said, which is the leak that keys must not have too.
      const [query, queryAmongOthers] = first((x) => model.query.project(x, { training: true }));
      expect(distance(queryAmongOthers!, query!)).toBeGreaterThan(1e-3);
      dispose();
    });
  });

  it.each(['moco-v2', 'moco-v3'])('%s drops the patches that train.patchDropout asks for', (objective) => {
    const losses = [0, 0.5].map((patchDropout) => {
      const one = { ...CASES.find((other) => other.objective === objective)!, train: { patchDropout } };
      const { step, dispose } = worldOf(one, WORLDS[0]!);
      const [result] = step(0);
      dispose();
      return result!.loss;
    });
    expect(losses[1]).not.toBe(losses[0]);
  });

  it('leaves a frozen random patch projection where it was, in both encoders', () => {
    const one = CASES.find(({ title }) => title.includes('frozen'))!;
    const { workers, step, dispose } = worldOf(one, WORLDS[0]!);
    const { model } = workers[0]!;
    const read = () =>
      new Map(
        [...model.parameters, ...model.buffers!].map(({ name: key, variable }) => [key, variable.dataSync().slice()]),
      );
    const before = read();
    step(0);
    const after = read();
    const stem = 'visual.conv1.weight';
    for (const key of [stem, `key.${stem}`]) expect(after.get(key)).toEqual(before.get(stem));
    for (const { name: key } of model.parameters) {
      if (key === stem) continue;
      expect(after.get(key), key).not.toEqual(before.get(key));
      const followed = `key.${key}`;
      if (after.has(followed)) expect(after.get(followed), followed).not.toEqual(before.get(followed));
    }
    dispose();
  });

  describe('the queue', () => {
    it('begins with keys of unit length in no direction of their own, the same for a seed', () => {
      const [a, b, other] = [1, 1, 2].map((seed) => new KeyQueue({ keys: 500, width: 8, seed }));
      const rows = a!.keys_KD.arraySync();
      for (const row of rows) expect(Math.hypot(...row)).toBeCloseTo(1, 6);
      for (let d = 0; d < 8; d++) {
        const mean = rows.reduce((sum, row) => sum + row[d]!, 0) / rows.length;
        expect(Math.abs(mean)).toBeLessThan(4 / Math.sqrt(8 * rows.length));
      }
      expect(b!.keys_KD.dataSync()).toEqual(a!.keys_KD.dataSync());
      expect(other!.keys_KD.dataSync()).not.toEqual(a!.keys_KD.dataSync());
      for (const queue of [a, b, other]) queue!.dispose();
    });

    it('replaces the oldest keys, row by row', () => {
      const queue = new KeyQueue({ keys: 6, width: 1, seed: 0 });
      const first = [...queue.keys_KD.dataSync()];
      queue.enqueue(new Float32Array([10, 11]));
      expect([...queue.keys_KD.dataSync()]).toEqual([10, 11, ...first.slice(2)]);
      queue.enqueue(new Float32Array([12, 13]));
      queue.enqueue(new Float32Array([14, 15]));
      expect(queue.position).toBe(0);
      queue.enqueue(new Float32Array([16, 17]));
      expect([...queue.keys_KD.dataSync()]).toEqual([16, 17, 12, 13, 14, 15]);
      expect(() => queue.enqueue(new Float32Array(4))).toThrow(/replaces a whole older one/);
      queue.dispose();
    });
  });
});
