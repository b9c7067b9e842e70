import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ModelConfig, runConfigSchema } from '../../common/config/run-config.ts';
import { RandomStream } from '../../common/random.ts';
import { type Engine, loadEngine, tf } from '../../engine/index.ts';
import { makeVariables } from '../../models/named-variables.ts';
import type { LaneRange } from '../../worker/collectives/lane-tree.ts';
import { newObjective } from '../../worker/objectives/new-objective.ts';
import type { Objective, TrainedModel } from '../../worker/objectives/objective.ts';
import { type LaneInput, LaneTrainer } from '../../worker/train/lane-trainer.ts';
import { StateView, stateBytes } from '../../worker/train/state-layout.ts';
import { LockstepWorld } from '../support/lockstep-world.ts';

const LANES = 6;
const LANE_BATCH = 2;
const GLOBAL_BATCH = LANES * LANE_BATCH;
const SIDE = 16;
const MODEL: ModelConfig = {
  embedDim: 16,
  quickGelu: false,
  vision: { imageSize: SIDE, patchSize: 8, width: 32, layers: 1, headWidth: 16, mlpRatio: 2 },
  text: { contextLength: 8, vocabSize: 40, width: 32, heads: 2, layers: 1, mlpRatio: 2 },
};
const WORLDS: readonly (readonly LaneRange[])[] = [
  [{ begin: 0, end: 6 }],
  [
    { begin: 0, end: 1 },
    { begin: 1, end: 6 },
  ],
  [
    { begin: 0, end: 3 },
    { begin: 3, end: 4 },
    { begin: 4, end: 6 },
  ],
];

function lanesOf(step: number, { begin, end }: LaneRange, broken = false): LaneInput[] {
  return Array.from({ length: end - begin }, (_, i) => {
    const random = new RandomStream('model-state', step, begin + i);
    return {
      lane: begin + i,
      pixels: new Uint8Array(LANE_BATCH * SIDE * SIDE * 3).map(() => random.integer(256)),
      tokens: new Int32Array(LANE_BATCH * 8).map((_, at) =>
        broken ? 0 : ([38, 1 + random.integer(36), 39][at % 8] ?? 0),
      ),
      seeds: new Uint32Array(LANE_BATCH).map(() => random.integer(2 ** 31)),
    };
  });
}

/**
 * CLIP, and beside it state such as batch norm, a momentum encoder and a queue have: an average of what the lanes saw, a count of updates,
 * the newest embeddings, and the sum of the seeds that were given.
 */
function statefulTraining(engine: Engine, poisoned: () => boolean): { trainer: LaneTrainer; model: TrainedModel } {
  const config = runConfigSchema.parse({
    run: 'test',
    seed: 5,
    store: 'file:///unused',
    model: MODEL,
    data: { manifest: 'file:///unused' },
    train: { steps: 9, globalBatch: GLOBAL_BATCH, lanes: LANES },
  });
  const { model: clip, objective } = newObjective(config, MODEL, engine);
  const constant = { kind: 'constant', value: 0 } as const;
  const buffers = makeVariables(
    [
      { name: 'seen', shape: [2], initial: constant },
      { name: 'updates', shape: [], initial: constant },
      { name: 'newest', shape: [GLOBAL_BATCH, 16], initial: constant },
    ],
    { seed: 0, init: 'zeros', trainable: false, scope: `model-state-${instances++}` },
  );
  const [seen, updates, newest] = buffers.map(({ variable }) => variable);
  const assign = (variable: tf.Variable, values: Float32Array) =>
    tf.tidy(() => variable.assign(tf.tensor(values, variable.shape)));
  let ofLane = [0, 0];
  const model: TrainedModel = {
    parameters: clip.parameters,
    buffers,
    statistics: {
      length: 2,
      entries: [{ name: 'seen', length: 2 }],
      begin: () => undefined,
      read: (out) => out.set(ofLane),
      apply: (mean) =>
        assign(
          seen!,
          mean.map((value, i) => 0.9 * seen!.dataSync<'float32'>()[i]! + 0.1 * value),
        ),
    },
    dispose() {
      clip.dispose();
      for (const { variable } of buffers) variable.dispose();
    },
  };
  const stateful: Objective = {
    inputs: objective.inputs,
    outputs: objective.outputs,
    exchanged: objective.exchanged,
    scalars: objective.scalars,
    metrics: objective.metrics,
    encode(input) {
      const pixels = tf.tidy(() => tf.mean(input.pixels_BHWC).dataSync()[0]!);
      ofLane = [pixels, input.seeds.reduce((sum, one) => sum + (one % 1000), 0)];
      return objective.encode(input);
    },
    exchange: (batch, lane, out) => objective.exchange(batch, lane, out),
    laneGradients(batch, lane, exchanged) {
      const result = objective.laneGradients(batch, lane, exchanged);
      return poisoned() ? { ...result, lossSum: Number.NaN } : result;
    },
    afterUpdate({ step, gathered }) {
      assign(updates!, new Float32Array([updates!.dataSync()[0]! + 10 ** -step]));
      assign(newest!, gathered[0]!);
    },
    similarityScale: (scalars) => objective.similarityScale(scalars),
  };
  const trainer = new LaneTrainer(
    {
      globalBatch: GLOBAL_BATCH,
      laneCount: LANES,
      imageSide: SIDE,
      mean: [0.5, 0.5, 0.5],
      std: [0.25, 0.25, 0.25],
      precision: 'fp32',
      gradClipNorm: undefined,
      nonFinite: 'skip',
      updater: {
        optimizer: { name: 'adamw', beta1: 0.9, beta2: 0.98, eps: 1e-6 },
        rules: clip.parameters.map(() => ({ frozen: false, weightDecay: 0, lrScale: 1, adapted: true })),
        ema: undefined,
      },
    },
    { engine, model, objective: stateful },
  );
  return { trainer, model };
}

let instances = 0;

function stateOf(trainer: LaneTrainer, step: number): StateView {
  const { layout, bufferFloats, stateSections } = trainer;
  const all = { parameterFloats: layout.parameterFloats, bufferFloats, stateSections };
  const view = new StateView(new SharedArrayBuffer(stateBytes(all)), all);
  trainer.exportState(view, step);
  return view;
}

describe('state of a model that no gradient changes', () => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await loadEngine({ engine: 'auto', threads: 1 });
  });
  afterAll(() => engine.close());

  function run(
    ranges: readonly LaneRange[],
    steps: readonly number[],
    options: { from?: StateView; nan?: number } = {},
  ) {
    let at = -1;
    const workers = ranges.map(() => statefulTraining(engine, () => at === options.nan));
    const world = new LockstepWorld(LANES, ranges);
    for (const [rank, { trainer }] of workers.entries()) {
      trainer.holdLanes(ranges[rank]!.begin, ranges[rank]!.end);
      if (options.from) trainer.importState(options.from);
    }
    for (const step of steps) {
      at = step;
      world.run(
        workers.map(
          ({ trainer }, rank) =>
            (collectives) =>
              trainer.step(step, 1e-2, lanesOf(step, ranges[rank]!), collectives),
        ),
      );
    }
    const states = workers.map(({ trainer }) => stateOf(trainer, steps.at(-1)! + 1));
    const digests = workers.map(({ trainer }) => trainer.weightsDigest());
    for (const { trainer, model } of workers) {
      trainer.dispose();
      model.dispose();
    }
    return { states, digests };
  }

  it('has the same bits on every worker of 1, 2 and 3, follows each update once, and is in the digest', () => {
    const alone = run(WORLDS[0]!, [0, 1, 2]);
    for (const ranges of WORLDS.slice(1)) {
      const { states, digests } = run(ranges, [0, 1, 2]);
      for (const state of states) expect(state.bytes).toEqual(alone.states[0]!.bytes);
      for (const digest of digests) expect(digest).toBe(alone.digests[0]);
    }
    const buffers = alone.states[0]!.section('buffers');
    expect(buffers[2]).toBeCloseTo(1.11, 5);
    const norms = Array.from({ length: GLOBAL_BATCH }, (_, row) =>
      Math.hypot(...buffers.subarray(3 + 16 * row, 19 + 16 * row)),
    );
    for (const norm of norms) expect(norm).toBeCloseTo(1, 5);
    const expected = [0, 1, 2].reduce((average, step) => {
      const sums = lanesOf(step, { begin: 0, end: LANES }).map(({ seeds }) =>
        seeds!.reduce((sum, one) => sum + (one % 1000), 0),
      );
      return 0.9 * average + (0.1 * sums.reduce((sum, one) => sum + one, 0)) / LANES;
    }, 0);
    expect(buffers[1]! / expected).toBeCloseTo(1, 5);
  });

  it('goes on bit for bit from an exported state, in another world', () => {
    const whole = run(WORLDS[0]!, [0, 1, 2, 3]);
    const half = run(WORLDS[1]!, [0, 1]);
    const rest = run(WORLDS[2]!, [2, 3], { from: half.states[1]! });
    for (const state of rest.states) expect(state.bytes).toEqual(whole.states[0]!.bytes);
  });

  it('stays as it is when a step is skipped', () => {
    const skipped = run(WORLDS[1]!, [0, 1], { nan: 1 });
    const before = run(WORLDS[1]!, [0]);
    expect(skipped.states[0]!.section('buffers')).toEqual(before.states[0]!.section('buffers'));
    expect(skipped.digests[0]).toBe(before.digests[0]);
  });
});
