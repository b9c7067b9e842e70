import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ModelConfig } from '../../common/config/run-config.ts';
import { RandomStream } from '../../common/random.ts';
import { type Engine, loadEngine, pixelsToTensor, recordForward, tf } from '../../engine/index.ts';
import { ClipModel } from '../../models/clip/clip-model.ts';
import { ClipObjective } from '../../worker/objectives/clip.ts';
import { SoloCollectives } from '../../worker/train/blocking-collectives.ts';
import { type LaneInput, LaneTrainer } from '../../worker/train/lane-trainer.ts';
import { StateView, stateBytes } from '../../worker/train/state-layout.ts';

const GLOBAL_BATCH = 12;
const MODEL: ModelConfig = {
  embedDim: 16,
  quickGelu: false,
  vision: { imageSize: 16, patchSize: 8, width: 32, layers: 2, headWidth: 16, mlpRatio: 4 },
  text: { contextLength: 8, vocabSize: 40, width: 32, heads: 2, layers: 2, mlpRatio: 4 },
};
const MEAN = [0.5, 0.4, 0.3] as const;
const STD = [0.2, 0.25, 0.3] as const;

function batch(step: number): { pixels: Uint8Array; tokens: Int32Array } {
  const random = new RandomStream(3, 'batch', step);
  const pixels = new Uint8Array(GLOBAL_BATCH * 16 * 16 * 3).map(() => random.integer(256));
  const tokens = new Int32Array(GLOBAL_BATCH * 8);
  for (let row = 0; row < GLOBAL_BATCH; row++) {
    const length = 1 + random.integer(5);
    tokens[row * 8] = 38;
    for (let i = 1; i <= length; i++) tokens[row * 8 + i] = 1 + random.integer(36);
    tokens[row * 8 + length + 1] = 39;
  }
  return { pixels, tokens };
}

function lanesOf(step: number, lanes: number): LaneInput[] {
  const { pixels, tokens } = batch(step);
  const rows = GLOBAL_BATCH / lanes;
  return Array.from({ length: lanes }, (_, lane) => ({
    lane,
    pixels: pixels.subarray(lane * rows * 768, (lane + 1) * rows * 768),
    tokens: tokens.subarray(lane * rows * 8, (lane + 1) * rows * 8),
  }));
}

describe.each(['cpu', 'auto'] as const)('LaneTrainer on engine %s', (name) => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await loadEngine({ engine: name, threads: 1 });
  });
  afterAll(() => engine.close());

  function trainer(lanes: number, precision: 'fp32' | 'bf16' = 'fp32', recompute: 'none' | 'blocks' | number = 'none') {
    const model = new ClipModel(MODEL, { seed: 5, precision, recompute });
    const made = new LaneTrainer(
      {
        globalBatch: GLOBAL_BATCH,
        laneCount: lanes,
        imageSide: 16,
        mean: [...MEAN],
        std: [...STD],
        precision,
        gradClipNorm: undefined,
        nonFinite: 'skip',
        optimizer: { beta1: 0.9, beta2: 0.98, eps: 1e-6 },
        weightDecays: model.parameters.map(() => 0.1),
      },
      { engine, model, objective: new ClipObjective({ logitScaleMax: Math.log(100) }, { engine, model }) },
    );
    made.holdLanes(0, lanes);
    const solo = new SoloCollectives(lanes, (target, source) => engine.addVectors(target, source));
    return { model, made, step: (index: number, lr: number) => made.step(index, lr, lanesOf(index, lanes), solo) };
  }

  /** The whole batch through one tape, the N×N loss written with stock tfjs ops, stock softmax gradients. */
  function reference(): { loss: number; gradients: Map<string, Float32Array> } {
    const model = new ClipModel(MODEL, { seed: 5, precision: 'fp32' });
    const variables = model.parameters.map((parameter) => parameter.variable);
    const logitScale = model.parameter('logit_scale');
    const { pixels, tokens } = batch(0);
    const x = pixelsToTensor(pixels, [GLOBAL_BATCH, 16, 16, 3], { mean: [...MEAN], std: [...STD], precision: 'fp32' });
    const recording = recordForward(() => {
      const image = model.encodeImage(x) as tf.Tensor2D;
      const text = model.encodeText(tokens, GLOBAL_BATCH) as tf.Tensor2D;
      const logits = tf.mul(tf.matMul(image, text, false, true), tf.exp(logitScale)) as tf.Tensor2D;
      const target = tf.eye(GLOBAL_BATCH);
      const crossEntropy = (rows: tf.Tensor2D) => tf.neg(tf.mean(tf.sum(tf.mul(target, tf.logSoftmax(rows)), 1)));
      return [tf.mul(tf.add(crossEntropy(logits), crossEntropy(tf.transpose(logits))), 0.5)];
    });
    const loss = recording.outputs[0]!.dataSync()[0]!;
    const gradients = new Map<string, Float32Array>();
    recording.backward([tf.scalar(1)], variables, (index, gradient) => {
      gradients.set(model.parameters[index]!.name, Float32Array.from(gradient.dataSync()));
    });
    x.dispose();
    model.dispose();
    return { loss, gradients };
  }

  it('has the loss and every gradient of a single-process full-batch reference, logit scale included', () => {
    const expected = reference();
    for (const lanes of [1, 3, 4, 6]) {
      const { model, made, step } = trainer(lanes);
      const { loss } = step(0, 0);
      expect(Math.abs(loss - expected.loss)).toBeLessThan(1e-5);
      made.layout.slots.forEach(({ name: parameter, offset, length }) => {
        const ours = made.reducedGradient.subarray(offset, offset + length);
        const theirs = expected.gradients.get(parameter) ?? new Float32Array(length);
        let worst = 0;
        let size = 0;
        for (let i = 0; i < length; i++) {
          worst = Math.max(worst, Math.abs(ours[i]! / GLOBAL_BATCH - theirs[i]!));
          size = Math.max(size, Math.abs(theirs[i]!));
        }
        expect(worst, `${parameter} with ${lanes} lanes`).toBeLessThanOrEqual(1e-5 * Math.max(size, 1e-2));
      });
      made.dispose();
      model.dispose();
    }
  });

  it('learns the batch, and a second trainer with the same seed follows bit for bit', () => {
    const [a, b] = [trainer(3), trainer(3)];
    const losses = Array.from({ length: 6 }, (_, i) => {
      const [first, second] = [a.step(i % 2, 3e-3), b.step(i % 2, 3e-3)];
      expect(second.loss).toBe(first.loss);
      return first.loss;
    });
    expect(losses.at(-1)!).toBeLessThan(losses[0]!);
    expect(b.made.weightsDigest()).toBe(a.made.weightsDigest());
    for (const one of [a, b]) {
      one.made.dispose();
      one.model.dispose();
    }
  });

  it('continues bit for bit from an exported state', () => {
    const whole = trainer(4);
    for (let i = 0; i < 4; i++) whole.step(i, 1e-3);
    const first = trainer(4);
    for (let i = 0; i < 2; i++) first.step(i, 1e-3);
    const floats = first.made.layout.parameterFloats;
    const view = new StateView(new SharedArrayBuffer(stateBytes(floats)), floats);
    first.made.exportState(view, 2);
    const second = trainer(4);
    expect(second.made.importState(view).step).toBe(2);
    for (let i = 2; i < 4; i++) second.step(i, 1e-3);
    expect(second.made.weightsDigest()).toBe(whole.made.weightsDigest());
    for (const one of [whole, first, second]) {
      one.made.dispose();
      one.model.dispose();
    }
  });

  it.each(['fp32', 'bf16'] as const)(
    'has the same bits where blocks are computed again in backward, in %s',
    (precision) => {
      const all = (['none', 'blocks', 1] as const).map((recompute) => trainer(3, precision, recompute));
      for (let i = 0; i < 3; i++) {
        const results = all.map((one) => one.step(i, 3e-3));
        for (const { loss, gradNorm } of results)
          expect([loss, gradNorm]).toEqual([results[0]!.loss, results[0]!.gradNorm]);
      }
      expect(new Set(all.map((one) => one.made.weightsDigest())).size).toBe(1);
      for (const one of all) {
        one.made.dispose();
        one.model.dispose();
      }
    },
  );

  it('refuses a step that is not finite and leaves the weights alone', () => {
    const { model, made, step } = trainer(2);
    const broken = model.parameter('visual.proj');
    const values = broken.dataSync();
    const poisoned = Float32Array.from(values);
    poisoned[0] = Number.NaN;
    engine.writeFrom(broken, poisoned);
    const before = made.weightsDigest();
    expect(step(0, 1e-3)).toMatchObject({ skipped: true });
    expect(made.weightsDigest()).toBe(before);
    expect(made.skippedSteps).toBe(1);
    made.dispose();
    model.dispose();
  });

  it('keeps the number of tensors constant over steps', () => {
    const { model, made, step } = trainer(3);
    step(0, 1e-3);
    const before = tf.memory().numTensors;
    for (let i = 1; i < 5; i++) step(i, 1e-3);
    expect(tf.memory().numTensors).toBe(before);
    made.dispose();
    model.dispose();
  });
});
