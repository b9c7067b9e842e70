import type { ModelConfig, RunConfig } from '../../common/config/run-config.ts';
import { RandomStream } from '../../common/random.ts';
import type { Tensor } from '../../engine/index.ts';
import type { LaneRange } from '../../worker/collectives/lane-tree.ts';
import type { TrainedModel } from '../../worker/objectives/objective.ts';
import { objectiveInputs } from '../../worker/objectives/objective-inputs.ts';
import type { LaneInput } from '../../worker/train/lane-encoder.ts';

/** What the objectives are tested with: one small model, and batches of noise. */

export const GLOBAL_BATCH = 12;
export const LANES = 6;
export const SIDE = 16;
export const CONTEXT = 8;
export const PIXELS = SIDE * SIDE * 3;
export const MODEL: ModelConfig = {
  embedDim: 16,
  quickGelu: false,
  vision: { imageSize: SIDE, patchSize: 8, width: 32, layers: 2, headWidth: 16, mlpRatio: 4 },
  text: { contextLength: CONTEXT, vocabSize: 40, width: 32, heads: 2, layers: 1, mlpRatio: 4 },
};
/** Lanes of one, two and three workers, uneven. */
export const WORLDS: readonly (readonly LaneRange[])[] = [
  [{ begin: 0, end: 6 }],
  [
    { begin: 0, end: 5 },
    { begin: 5, end: 6 },
  ],
  [
    { begin: 0, end: 1 },
    { begin: 1, end: 3 },
    { begin: 3, end: 6 },
  ],
];

/** A run's config as it is written. @param train over what all have */
export const rawConfig = (
  { objective, loss = {} }: { readonly objective: string; readonly loss?: object },
  model: ModelConfig,
  train: object = {},
) => ({
  run: 'test',
  seed: 5,
  store: 'file:///unused',
  objective,
  loss,
  model,
  data: { manifest: 'file:///unused', mean: [0.5, 0.4, 0.3], std: [0.2, 0.25, 0.3] },
  train: { steps: 9, globalBatch: GLOBAL_BATCH, lanes: LANES, nonFinite: 'stop', ...train },
});

export interface Case {
  readonly title: string;
  readonly objective: RunConfig['objective'];
  readonly loss?: object;
  readonly model?: Partial<ModelConfig>;
  /** Parameters that a normalisation behind them makes the loss deaf to: their gradient is 0 but for rounding. */
  readonly unmoved?: readonly string[];
  /** The plain loss of the encoded batch. `pixels` are [views × N, …], the first views before the second ones. */
  readonly reference: (model: TrainedModel, pixels: Tensor, batch: Batch) => Tensor;
}

export interface Batch {
  readonly side: number;
  /** [views, N, side, side, 3] */
  readonly pixels: Uint8Array;
  readonly tokens: Int32Array;
  readonly labels: Int32Array;
  readonly seeds: Uint32Array;
}

export function batchOf(step: number, config: Pick<RunConfig, 'objective' | 'loss'>, side: number): Batch {
  const random = new RandomStream(3, 'batch', step);
  const { views, captions, labels } = objectiveInputs(config);
  const tokens = new Int32Array(captions ? GLOBAL_BATCH * CONTEXT : 0);
  for (let begin = 0; begin < tokens.length; begin += CONTEXT) {
    const length = 1 + random.integer(5);
    tokens[begin] = 38;
    for (let i = 1; i <= length; i++) tokens[begin + i] = 1 + random.integer(36);
    tokens[begin + length + 1] = 39;
  }
  return {
    side,
    pixels: new Uint8Array(views * GLOBAL_BATCH * side * side * 3).map(() => random.integer(256)),
    tokens,
    labels: new Int32Array(labels ? GLOBAL_BATCH : 0).map(() => random.integer(4)),
    seeds: new Uint32Array(GLOBAL_BATCH).map(() => random.uint32()),
  };
}

/** One lane's part: its rows of the first view, then of the second. */
export function laneOf({ side, pixels, tokens, labels, seeds }: Batch, lane: number): LaneInput {
  const picture = side * side * 3;
  const b = GLOBAL_BATCH / LANES;
  const views = pixels.length / (GLOBAL_BATCH * picture);
  const own = new Uint8Array(views * b * picture);
  for (let view = 0; view < views; view++) {
    const begin = (view * GLOBAL_BATCH + lane * b) * picture;
    own.set(pixels.subarray(begin, begin + b * picture), view * b * picture);
  }
  const ofLane = <T extends Int32Array | Uint32Array>(values: T) =>
    values.slice((lane * values.length) / LANES, ((lane + 1) * values.length) / LANES) as T;
  return { lane, pixels: own, tokens: ofLane(tokens), labels: ofLane(labels), seeds: ofLane(seeds) };
}
