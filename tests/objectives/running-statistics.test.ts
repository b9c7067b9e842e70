import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ModelConfig, runConfigSchema } from '../../common/config/run-config.ts';
import { RandomStream } from '../../common/random.ts';
import { type Engine, loadEngine, pixelsToTensor, type Tensor, type Tensor4D, tf } from '../../engine/index.ts';
import type { ViewModel } from '../../models/vision/view-model.ts';
import { SoloCollectives } from '../../worker/train/blocking-collectives.ts';
import type { LaneInput } from '../../worker/train/lane-encoder.ts';
import { newTrainer } from '../../worker/train/new-trainer.ts';
import { StateView, stateBytes } from '../../worker/train/state-layout.ts';

const LANES = 3;
const LANE_BATCH = 2;
const SIDE = 8;
const MEAN = [0.5, 0.4, 0.3] as const;
const STD = [0.2, 0.25, 0.3] as const;
const MODEL: ModelConfig = {
  embedDim: 16,
  quickGelu: false,
  vision: { kind: 'resnet', imageSize: SIDE, depth: 18, stem: 'cifar', width: 4 },
  text: { contextLength: 8, vocabSize: 40, width: 32, heads: 2, layers: 1, mlpRatio: 2 },
};

function lanesOf(step: number): LaneInput[] {
  return Array.from({ length: LANES }, (_, lane) => {
    const random = new RandomStream('running-statistics', step, lane);
    const pixels = new Uint8Array(LANE_BATCH * SIDE * SIDE * 3).map(() => random.integer(256));
    return { lane, pixels, tokens: new Int32Array(0), labels: Int32Array.from([lane, (lane + step) % 3]) };
  });
}

describe('running statistics of batch norms', () => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await loadEngine({ engine: 'auto', threads: 1 });
  });
  afterAll(() => engine.close());

  function training() {
    const config = runConfigSchema.parse({
      run: 'test',
      seed: 5,
      store: 'file:///unused',
      objective: 'supervised',
      loss: { classes: 3 },
      model: MODEL,
      data: { manifest: 'file:///unused', mean: MEAN, std: STD },
      train: { steps: 9, globalBatch: LANES * LANE_BATCH, lanes: LANES },
    });
    const { model, trainer } = newTrainer(config, MODEL, engine);
    trainer.holdLanes(0, LANES);
    const solo = new SoloCollectives(LANES, (target, source) => engine.addVectors(target, source));
    return {
      model: model as ViewModel,
      trainer,
      step: (index: number, lr: number) => trainer.step(index, lr, lanesOf(index), solo),
      state: () => {
        const { parameterFloats } = trainer.layout;
        const { stateSections, bufferFloats } = trainer;
        const layout = { parameterFloats, stateSections, bufferFloats };
        return new StateView(new SharedArrayBuffer(stateBytes(layout)), layout);
      },
      dispose: () => {
        trainer.dispose();
        model.dispose();
      },
    };
  }

  const values = (model: ViewModel, name: string) => model.parameter<Tensor>(name).dataSync<'float32'>();

  /** Of the first batch norm, from its definition: mean over lanes of each lane's mean and unbiased variance, per channel. */
  function plainStatistics(model: ViewModel, index: number): { mean: number[]; variance: number[] } {
    const lanes = lanesOf(index).map(({ pixels }) =>
      tf.tidy(() => {
        const x = pixelsToTensor(pixels, [LANE_BATCH, SIDE, SIDE, 3], { mean: MEAN, std: STD, precision: 'fp32' });
        const kernel = tf.transpose(model.parameter<Tensor4D>('visual.conv1.weight'), [2, 3, 1, 0]) as Tensor4D;
        const y = tf.reshape(tf.conv2d(x, kernel, 1, 'same'), [-1, 4]).arraySync() as number[][];
        return y;
      }),
    ) as unknown as number[][][];
    const ofLanes = (statistic: (column: number[]) => number) =>
      [0, 1, 2, 3].map((channel) => {
        const each = lanes.map((rows) => statistic(rows.map((row) => row[channel]!)));
        return each.reduce((a, b) => a + b, 0) / LANES;
      });
    const average = (column: number[]) => column.reduce((a, b) => a + b, 0) / column.length;
    const unbiased = (column: number[]) => {
      const centre = average(column);
      return column.reduce((sum, value) => sum + (value - centre) ** 2, 0) / (column.length - 1);
    };
    return { mean: ofLanes(average), variance: ofLanes(unbiased) };
  }

  it('move a tenth of the way to the mean of the lanes’ statistics with every update', () => {
    const { model, step, dispose } = training();
    const expected = { mean: [0, 0, 0, 0], variance: [1, 1, 1, 1] };
    for (const index of [0, 1]) {
      const seen = plainStatistics(model, index);
      for (const key of ['mean', 'variance'] as const) {
        expected[key] = expected[key].map((old, channel) => 0.9 * old + 0.1 * seen[key][channel]!);
      }
      step(index, 1e-2);
    }
    for (let channel = 0; channel < 4; channel++) {
      expect(values(model, 'visual.bn1.running_mean')[channel]).toBeCloseTo(expected.mean[channel]!, 5);
      expect(values(model, 'visual.bn1.running_var')[channel]).toBeCloseTo(expected.variance[channel]!, 5);
    }
    dispose();
  });

  it('are what evaluation normalises by: a picture’s feature does not depend on those beside it', () => {
    const { model, step, dispose } = training();
    step(0, 1e-2);
    const features = (rows: number, training: boolean) =>
      tf.tidy(() => {
        const pixels = lanesOf(7)[0]!.pixels.subarray(0, rows * SIDE * SIDE * 3);
        const x = pixelsToTensor(pixels, [rows, SIDE, SIDE, 3], { mean: MEAN, std: STD, precision: 'fp32' });
        return model.features(x, { training }).dataSync<'float32'>().slice(0, 32);
      }) as unknown as Float32Array;
    const difference = (a: Float32Array, b: Float32Array) =>
      a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);
    expect(difference(features(1, false), features(2, false))).toBeLessThan(1e-5);
    expect(difference(features(2, true), features(2, false))).toBeGreaterThan(1e-2);
    dispose();
  });

  it('go on from an exported state bit for bit', () => {
    const whole = training();
    for (const index of [0, 1, 2, 3]) whole.step(index, 1e-2);
    const [first, second] = [training(), training()];
    for (const index of [0, 1]) first.step(index, 1e-2);
    const view = first.state();
    first.trainer.exportState(view, 2);
    second.step(5, 1e-1);
    expect(second.trainer.importState(view).step).toBe(2);
    for (const index of [2, 3]) second.step(index, 1e-2);
    expect(second.trainer.weightsDigest()).toBe(whole.trainer.weightsDigest());
    const name = 'visual.layer4.1.bn2.running_var';
    expect(values(second.model, name)).toEqual(values(whole.model, name));
    for (const one of [whole, first, second]) one.dispose();
  });
});
