import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runConfigSchema } from '../../common/config/run-config.ts';
import { type Engine, loadEngine, tf } from '../../engine/index.ts';
import { newTrainer } from '../../worker/train/new-trainer.ts';
import { LockstepWorld } from '../support/lockstep-world.ts';
import { batchOf, GLOBAL_BATCH, LANES, laneOf, MODEL, rawConfig } from './objective-case.ts';

/** Objectives whose loss is more than a formula of embeddings, end to end: what is compared is the training step's own loss. */
const CASES = [
  { title: 'cloze', objective: 'cloze', loss: {} },
  { title: 'rotation', objective: 'rotation', loss: {} },
  { title: 'rotation-pairs', objective: 'rotation-pairs', loss: {} },
  { title: 'supervised with mixup', objective: 'supervised', loss: { classes: 4, mixup: 0.8 } },
  {
    title: 'joint: clip and simclr',
    objective: 'joint',
    loss: { temperature: 0.5, joint: [{ objective: 'clip' }, { objective: 'simclr', weight: 0.5 }] },
  },
] as const;

const STEPS = [3e-3, 1e-3, 5e-4];

describe('the gradient of a step', () => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await loadEngine({ engine: 'auto', threads: 1 });
  });
  afterAll(() => engine.close());

  it.each(CASES)('is the slope of its loss by central differences: $title', ({ objective, loss }) => {
    const config = runConfigSchema.parse(rawConfig({ objective, loss }, MODEL));
    const { model, trainer } = newTrainer(config, MODEL, engine);
    trainer.holdLanes(0, LANES);
    const world = new LockstepWorld(LANES, [{ begin: 0, end: LANES }]);
    const batch = batchOf(0, config, MODEL.vision.imageSize);
    const lanes = Array.from({ length: LANES }, (_, lane) => laneOf(batch, lane));
    // Without a learning rate nothing that the loss reads moves.
    const lossNow = () => world.run([(collectives) => trainer.step(0, 0, lanes, collectives)])[0]!.loss;
    lossNow();
    const whole = trainer.reducedGradient.slice().map((sum) => sum / GLOBAL_BATCH);
    let compared = 0;
    trainer.layout.slots.forEach(({ name, offset, length }, index) => {
      const gradient = whole.subarray(offset, offset + length);
      const size = Math.hypot(...gradient);
      // What hardly matters to the loss drowns in its fp32.
      if (size < 1e-2) return;
      compared++;
      const { variable, shape } = model.parameters[index]!;
      const before = Float32Array.from(variable.dataSync<'float32'>());
      const assign = (values: Float32Array) => tf.tidy(() => variable.assign(tf.tensor(values, [...shape])));
      const errorOf = (step: number) => {
        const [up, down] = [1, -1].map((sign) => {
          assign(before.map((value, i) => value + (sign * step * gradient[i]!) / size));
          return lossNow();
        });
        return Math.abs((up! - down!) / (2 * step) / size - 1);
      };
      // Far enough for fp32 if that is a straight line; near a kink of ReLU the step must be shorter. No step makes a wrong gradient right.
      const fits = STEPS.some((step) => errorOf(step / Math.max(1, size)) < 0.03);
      assign(before);
      expect(fits, name).toBe(true);
    });
    expect(compared).toBeGreaterThan(trainer.layout.slots.length / 4);
    trainer.dispose();
    model.dispose();
  });
});
