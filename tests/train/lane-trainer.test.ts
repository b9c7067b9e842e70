import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ModelConfig } from '../../common/config/run-config.ts';
import { RandomStream } from '../../common/random.ts';
import { type Engine, loadEngine, type OptimizerSpec, pixelsToTensor, recordForward, tf } from '../../engine/index.ts';
import { ClipModel } from '../../models/clip/clip-model.ts';
import { ClipObjective } from '../../worker/objectives/clip.ts';
import { SoloCollectives } from '../../worker/train/blocking-collectives.ts';
import { type LaneInput, LaneTrainer } from '../../worker/train/lane-trainer.ts';
import { StateView, stateBytes } from '../../worker/train/state-layout.ts';
import type { WeightUpdaterOptions } from '../../worker/train/weight-updater.ts';
import { autoEngines } from '../support/engines.ts';

const GLOBAL_BATCH = 12;
const MODEL: ModelConfig = {
  embedDim: 16,
  quickGelu: false,
  vision: { imageSize: 16, patchSize: 8, width: 32, layers: 2, headWidth: 16, mlpRatio: 4 },
  text: { contextLength: 8, vocabSize: 40, width: 32, heads: 2, layers: 2, mlpRatio: 4 },
};
const MEAN = [0.5, 0.4, 0.3] as const;
const STD = [0.2, 0.25, 0.3] as const;

const betas = { beta1: 0.9, beta2: 0.98, eps: 1e-6 };
/** Each optimiser, and every how many updates the weights are averaged (0: never). */
const OPTIMIZERS = [
  { name: 'adamw', variant: '', average: 0, ...betas },
  { name: 'adamw', variant: '', average: 1, ...betas },
  { name: 'sgd', variant: 'nesterov', average: 0, momentum: 0.9, nesterov: true },
  { name: 'lars', variant: 'simclr', average: 0, momentum: 0.9, nesterov: false, trustCoefficient: 1e-3 },
  { name: 'lars', variant: 'moco-v3', average: 0, momentum: 0.9, nesterov: false, trustCoefficient: 1e-3 },
  { name: 'lars', variant: 'larc', average: 2, momentum: 0.9, nesterov: false, trustCoefficient: 1e-3 },
  { name: 'lamb', variant: '', average: 3, ...betas, biasCorrection: true },
  { name: 'lion', variant: '', average: 0, ...betas },
];

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

/** The whole training state before step `step`. */
function stateOf(trainer: LaneTrainer, step: number): StateView {
  const { layout, bufferFloats, stateSections } = trainer;
  const state = { parameterFloats: layout.parameterFloats, bufferFloats, stateSections };
  const view = new StateView(new SharedArrayBuffer(stateBytes(state)), state);
  trainer.exportState(view, step);
  return view;
}

describe.each(autoEngines)('LaneTrainer on engine %s', (name) => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await loadEngine({ engine: name, threads: 1 });
  });
  afterAll(() => engine.close());

  function trainer(
    lanes: number,
    precision: 'fp32' | 'bf16' = 'fp32',
    recompute: 'none' | 'blocks' | number = 'none',
    updater: Partial<WeightUpdaterOptions> = {},
  ) {
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
        updater: {
          optimizer: { name: 'adamw', beta1: 0.9, beta2: 0.98, eps: 1e-6 },
          rules: model.parameters.map(() => ({ weightDecay: 0.1, lrScale: 1, frozen: false, adapted: true })),
          ema: undefined,
          ...updater,
        },
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

  it.each(OPTIMIZERS)('continues bit for bit from an exported state: $name $variant, average $average', (one) => {
    const { average, ...optimizer } = one;
    const options = {
      optimizer: optimizer as OptimizerSpec,
      ema: average ? { decay: 0.9, everySteps: average } : undefined,
    };
    const begin = () => trainer(4, 'fp32', 'none', options);
    const whole = begin();
    for (let i = 0; i < 4; i++) whole.step(i, 1e-3);
    const first = begin();
    for (let i = 0; i < 2; i++) first.step(i, 1e-3);
    const view = stateOf(first.made, 2);
    const second = begin();
    // Whatever it trained before must not show.
    second.step(7, 1e-2);
    expect(second.made.importState(view).step).toBe(2);
    for (let i = 2; i < 4; i++) second.step(i, 1e-3);
    expect(second.made.weightsDigest()).toBe(whole.made.weightsDigest());
    expect(stateOf(second.made, 4).bytes).toEqual(stateOf(whole.made, 4).bytes);
    expect(second.made.stateSections.includes('ema')).toBe(average > 0);
    for (const made of [whole, first, second]) {
      made.made.dispose();
      made.model.dispose();
    }
  });

  it('averages the weights of every second update, as a plain loop over exported weights does', () => {
    const { model, made, step } = trainer(4, 'fp32', 'none', { ema: { decay: 0.75, everySteps: 2 } });
    const expected = Float64Array.from(stateOf(made, 0).section('weights'));
    for (let i = 0; i < 4; i++) {
      step(i, 1e-2);
      const weights = stateOf(made, i + 1).section('weights');
      if (i % 2 === 0) continue;
      weights.forEach((value, at) => {
        expected[at]! += 0.25 * (value - expected[at]!);
      });
    }
    const average = stateOf(made, 4).section('ema');
    average.forEach((value, at) => void expect(Math.abs(value - expected[at]!)).toBeLessThan(1e-6));
    expect(average).not.toEqual(stateOf(made, 4).section('weights'));
    made.dispose();
    model.dispose();
  });

  it('never writes a frozen parameter, and trains the others as if it did not know', () => {
    const rules = (frozen: (name: string) => boolean) => {
      const model = new ClipModel(MODEL, { seed: 5, precision: 'fp32' });
      const list = model.parameters.map(({ name: parameter }) => ({
        weightDecay: 0.1,
        lrScale: 1,
        frozen: frozen(parameter),
        adapted: true,
      }));
      model.dispose();
      return list;
    };
    const locked = trainer(3, 'fp32', 'none', { rules: rules((parameter) => parameter.startsWith('visual.')) });
    const partly = trainer(3, 'fp32', 'none', {
      rules: rules((parameter) => parameter.startsWith('visual.') && parameter !== 'visual.proj'),
    });
    const free = trainer(3);
    const before = free.model.readWeights();
    for (const one of [locked, partly, free]) one.step(0, 1e-3);
    for (const { name: parameter } of free.model.parameters) {
      const [start, held, half, moved] = [before, ...[locked, partly, free].map((one) => one.model.readWeights())].map(
        (weights) => weights!.get(parameter)!,
      );
      const isImage = parameter.startsWith('visual.');
      // What is trained sees the gradients it always sees.
      expect(held, parameter).toEqual(isImage ? start : moved);
      expect(half, parameter).toEqual(isImage && parameter !== 'visual.proj' ? start : moved);
    }
    const { gradNorm } = locked.step(1, 1e-3);
    expect(gradNorm).toBeGreaterThan(0);
    expect(gradNorm).toBeLessThan(free.step(1, 1e-3).gradNorm);
    const state = stateOf(locked.made, 2);
    const { offset } = locked.made.layout.slots.find((slot) => slot.name === 'visual.proj')!;
    expect(state.section('firstMoments')[offset]).toBe(0);
    for (const one of [locked, partly, free]) {
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
