import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ModelConfig, runConfigSchema } from '../../common/config/run-config.ts';
import { type Engine, loadEngine, tf } from '../../engine/index.ts';
import { assignAll, readAll } from '../../models/named-variables.ts';
import type { LaneRange } from '../../worker/collectives/lane-tree.ts';
import type { TrainedModel } from '../../worker/objectives/objective.ts';
import type { LaneTrainer } from '../../worker/train/lane-trainer.ts';
import { newTrainer } from '../../worker/train/new-trainer.ts';
import { LockstepWorld } from '../support/lockstep-world.ts';
import { type Batch, batchOf, GLOBAL_BATCH, LANES, laneOf, MODEL, PIXELS, rawConfig } from './objective-case.ts';

/** CLIP takes the first view, SimCLR the second and third. */
const WEIGHT = 0.5;
const LOSS = { temperature: 0.2, projection: { batchNorm: true, width: 8 } };
const JOINT = {
  objective: 'joint',
  loss: { ...LOSS, joint: [{ objective: 'clip' }, { objective: 'simclr', weight: WEIGHT }] },
} as const;
const RESNET: ModelConfig = {
  ...MODEL,
  vision: { kind: 'resnet', imageSize: 16, depth: 18, stem: 'cifar', width: 4 },
};
const WHOLE: LaneRange[] = [{ begin: 0, end: LANES }];

describe('a joint objective', () => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await loadEngine({ engine: 'auto', threads: 1 });
  });
  afterAll(() => engine.close());

  /** Workers that hold these lanes and step together. */
  function worldOf(
    choice: { readonly objective: string; readonly loss: object },
    { model: modelConfig, ranges = WHOLE, train = {} }: { model: ModelConfig; ranges?: LaneRange[]; train?: object },
  ) {
    const config = runConfigSchema.parse(rawConfig(choice, modelConfig, train));
    const world = new LockstepWorld(LANES, ranges);
    const workers = ranges.map(({ begin, end }) => {
      const made = newTrainer(config, modelConfig, engine);
      made.trainer.holdLanes(begin, end);
      return made;
    });
    return {
      ...workers[0]!,
      batch: (index: number) => batchOf(index, config, 16),
      step: (index: number, lr: number, batch: Batch) =>
        world.run(
          workers.map(({ trainer }, rank) => (collectives) => {
            const { begin, end } = ranges[rank]!;
            const lanes = Array.from({ length: end - begin }, (_, i) => laneOf(batch, begin + i));
            return trainer.step(index, lr, lanes, collectives);
          }),
        ),
      digests: () => workers.map(({ trainer }) => trainer.weightsDigest()),
      dispose: () => {
        for (const { trainer, model } of workers) {
          trainer.dispose();
          model.dispose();
        }
      },
    };
  }

  const viewsOf = (batch: Batch, begin: number, count: number): Batch => {
    const floats = GLOBAL_BATCH * PIXELS;
    return { ...batch, pixels: batch.pixels.subarray(begin * floats, (begin + count) * floats) };
  };

  /** The same weights in the joint model and in one that is trained alone, whose head is not keyed by the part. */
  function copyHead(from: TrainedModel, to: TrainedModel, part: string): void {
    const source = readAll(from.parameters);
    const heads = to.parameters.filter(({ name }) => name.startsWith('head.'));
    assignAll(heads, new Map(heads.map(({ name }) => [name, source.get(`${part}.${name}`)!])));
  }

  /** One step of the joint objective and of each part by itself, on the same views. */
  function stepTogetherAndApart(model: ModelConfig, train: object) {
    const joint = worldOf(JOINT, { model, train });
    const clip = worldOf({ objective: 'clip', loss: {} }, { model, train });
    const simclr = worldOf({ objective: 'simclr', loss: LOSS }, { model, train });
    copyHead(joint.model, simclr.model, 'simclr');
    const batch = joint.batch(0);
    const [together] = joint.step(0, 1e-2, batch);
    clip.step(0, 1e-2, viewsOf(batch, 0, 1));
    simclr.step(0, 1e-2, { ...viewsOf(batch, 1, 2), tokens: new Int32Array(0) });
    const dispose = () => {
      for (const one of [joint, clip, simclr]) one.dispose();
    };
    return { joint, clip, simclr, together: together!, dispose };
  }

  const buffersOf = ({ buffers = [] }: TrainedModel) => readAll(buffers);

  it('moves the running statistics of a shared tower once a step, towards the mean of what its parts met', () => {
    const { joint, clip, simclr, dispose } = stepTogetherAndApart(RESNET, {});
    const [ours, ofClip, ofSimclr] = [joint, clip, simclr].map(({ model }) => buffersOf(model));
    let compared = 0;
    for (const [name, values] of ours!) {
      const own = name.startsWith('simclr.');
      const theirs = ofSimclr!.get(name.replace('simclr.', ''))!;
      const other = ofClip!.get(name);
      expect(other === undefined, name).toBe(own);
      for (const [i, value] of values.entries()) {
        const expected = own ? theirs[i]! : (theirs[i]! + other![i]!) / 2;
        expect(Math.abs(value - expected), name).toBeLessThan(1e-5);
        compared++;
      }
    }
    const running = ours!.get('visual.bn1.running_var')!;
    expect(running.some((value) => Math.abs(value - 1) > 1e-3)).toBe(true);
    expect(ours!.has('simclr.head.1.running_mean')).toBe(true);
    expect(compared).toBeGreaterThan(100);
    dispose();
  });

  it('has one set of bits with batch norms, in any world, recorded once or twice', () => {
    const worlds: { ranges: LaneRange[]; train?: object }[] = [
      { ranges: WHOLE },
      {
        ranges: [
          { begin: 0, end: 5 },
          { begin: 5, end: 6 },
        ],
      },
      {
        ranges: [
          { begin: 0, end: 1 },
          { begin: 1, end: 3 },
          { begin: 3, end: 6 },
        ],
        train: { gradCache: true },
      },
    ];
    const curves = worlds.map((options) => {
      const world = worldOf(JOINT, { model: RESNET, ...options });
      const rows = [0, 1, 2].map((index) => {
        const results = world.step(index, 3e-3, world.batch(index));
        const seen = results.map(({ loss, gradNorm, metrics }, rank) => {
          return { loss, gradNorm, metrics, digest: world.digests()[rank] };
        });
        for (const other of seen) expect(other).toEqual(seen[0]);
        return seen[0];
      });
      world.dispose();
      return rows;
    });
    expect(curves[1]).toEqual(curves[0]);
    expect(curves[2]).toEqual(curves[0]);
  });

  it('drops the patches that its parts drop by themselves', () => {
    const gradientOf = (trainer: LaneTrainer) => {
      const { slots } = trainer.layout;
      return new Map(
        slots.map(({ name, offset, length }) => [name, trainer.reducedGradient.slice(offset, offset + length)]),
      );
    };
    const ofDropping = (patchDropout: number) => {
      const { joint, clip, simclr, dispose } = stepTogetherAndApart(MODEL, { patchDropout });
      const [ours, ofClip, ofSimclr] = [joint, clip, simclr].map(({ trainer }) => gradientOf(trainer));
      dispose();
      return { ours: ours!, ofClip: ofClip!, ofSimclr: ofSimclr! };
    };
    const { ours, ofClip, ofSimclr } = ofDropping(0.5);
    for (const [name, gradient] of ours) {
      const alone = [ofClip.get(name), ofSimclr.get(name.replace('simclr.', ''))];
      const sum = gradient.map((_, i) => (alone[0]?.[i] ?? 0) + WEIGHT * (alone[1]?.[i] ?? 0));
      const size = sum.reduce((most, value) => Math.max(most, Math.abs(value)), 0.1);
      const worst = gradient.reduce((most, value, i) => Math.max(most, Math.abs(value - sum[i]!)), 0);
      expect(worst, name).toBeLessThan(1e-5 * size);
    }
    const patches = 'visual.conv1.weight';
    const [dropped, whole] = [ours, ofDropping(0).ours].map((gradients) => tf.tensor1d(gradients.get(patches)!));
    const [difference] = tf.tidy(() => tf.max(tf.abs(tf.sub(dropped!, whole!))).dataSync());
    expect(difference).toBeGreaterThan(1e-2);
    tf.dispose([dropped!, whole!]);
  });
});
