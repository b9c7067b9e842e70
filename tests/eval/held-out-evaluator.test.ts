import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ModelConfig, type RunConfig, runConfigSchema } from '../../common/config/run-config.ts';
import { RandomStream } from '../../common/random.ts';
import { type Engine, loadEngine, pixelsToTensor, tf } from '../../engine/index.ts';
import type { ClipModel } from '../../models/clip/clip-model.ts';
import type { LaneRange } from '../../worker/collectives/lane-tree.ts';
import { blockBegin, roundsOf } from '../../worker/eval/eval-rounds.ts';
import {
  type EvalBlock,
  type EvalFacts,
  type EvaluationFigures,
  HeldOutEvaluator,
  NO_ROW,
} from '../../worker/eval/held-out-evaluator.ts';
import { placeOf, retrievalMetrics } from '../../worker/eval/retrieval.ts';
import { objectiveInputs } from '../../worker/objectives/objective-inputs.ts';
import { newTrainer } from '../../worker/train/new-trainer.ts';
import { WORLDS } from '../objectives/objective-case.ts';
import { LockstepWorld } from '../support/lockstep-world.ts';

const LANES = 6;
const LANE_BATCH = 4;
const GEOMETRY = { lanes: LANES, laneBatch: LANE_BATCH };
const SIDE = 16;
const PIXELS = SIDE * SIDE * 3;
const CONTEXT = 8;
/** Two rounds, the second of which is not full. */
const SAMPLES = 40;
const CLASSES = 5;
const TEMPLATES = 2;
/** A broken picture: left out everywhere. */
const BROKEN = 7;
const MODEL: ModelConfig = {
  embedDim: 16,
  quickGelu: false,
  vision: { imageSize: SIDE, patchSize: 8, width: 32, layers: 2, headWidth: 16, mlpRatio: 4 },
  text: { contextLength: CONTEXT, vocabSize: 40, width: 32, heads: 2, layers: 1, mlpRatio: 4 },
};

const random = new RandomStream('held out');
const pictures = Array.from({ length: SAMPLES }, () => new Uint8Array(PIXELS).map(() => random.integer(256)));
const labels = pictures.map((_, i) => i % CLASSES);
const tokensOf = (...words: number[]) => Int32Array.from({ length: CONTEXT }, (_, i) => [38, ...words, 39][i] ?? 0);
// Some captions are equal: their ties go to the first.
const captions = pictures.map((_, i) => tokensOf(1 + (i % 30), 2));
const classTexts = Array.from({ length: CLASSES * TEMPLATES }, (_, i) =>
  tokensOf(3 + (i % CLASSES), 10 + Math.floor(i / CLASSES)),
);

function block(lane: number, round: number): EvalBlock {
  const made = {
    lane,
    pixels: new Uint8Array(LANE_BATCH * PIXELS),
    tokens: new Int32Array(LANE_BATCH * CONTEXT),
    labels: new Int32Array(LANE_BATCH).fill(NO_ROW),
  };
  for (let row = 0; row < LANE_BATCH; row++) {
    const sample = blockBegin(round, lane, GEOMETRY) + row;
    made.tokens.set(captions[sample] ?? tokensOf(), row * CONTEXT);
    if (sample >= SAMPLES || sample === BROKEN) continue;
    made.pixels.set(pictures[sample]!, row * PIXELS);
    made.labels[row] = labels[sample]!;
  }
  return made;
}

function textBlock(lane: number, round: number): EvalBlock {
  const tokens = new Int32Array(LANE_BATCH * CONTEXT);
  for (let row = 0; row < LANE_BATCH; row++) {
    tokens.set(classTexts[blockBegin(round, lane, GEOMETRY) + row] ?? tokensOf(), row * CONTEXT);
  }
  return { lane, pixels: new Uint8Array(0), tokens, labels: new Int32Array(LANE_BATCH) };
}

describe('held-out data', () => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await loadEngine({ engine: 'auto', threads: 1 });
  });
  afterAll(() => engine.close());

  function configOf(objective: RunConfig['objective'], loss: object = {}): RunConfig {
    return runConfigSchema.parse({
      run: 'test',
      seed: 5,
      store: 'file:///unused',
      objective,
      loss,
      model: MODEL,
      data: { manifest: 'file:///unused' },
      train: { steps: 9, globalBatch: LANES * LANE_BATCH, lanes: LANES },
      eval: { knn: { neighbours: 5 } },
    });
  }

  /** Every worker's figures, in a world of these lanes; and the digest of the weights before and after. */
  function evaluateIn(ranges: readonly LaneRange[], config: RunConfig, facts: EvalFacts) {
    const made = newTrainer(config, MODEL, engine);
    const digest = made.trainer.weightsDigest();
    const { data, train } = config;
    const options = {
      objective: config.objective,
      evaluation: config.eval,
      laneCount: LANES,
      laneBatch: LANE_BATCH,
      imageSide: SIDE,
      mean: data.mean,
      std: data.std,
      precision: train.precision,
    };
    const world = new LockstepWorld(LANES, ranges);
    let op = 0;
    // A part that waits for another worker is begun anew, with the same numbers.
    const workers = ranges.map(() => new HeldOutEvaluator(options, facts, { ...made, engine }, () => op++));
    const together = <T>(
      part: (
        evaluator: HeldOutEvaluator,
        range: LaneRange,
        collectives: Parameters<Parameters<typeof world.run>[0][0]>[0],
      ) => T,
    ): T[] =>
      world.run(
        workers.map((worker, rank) => (collectives) => {
          op = 0;
          return part(worker, ranges[rank]!, collectives);
        }),
      );
    const lanesOf = ({ begin, end }: LaneRange) => Array.from({ length: end - begin }, (_, i) => begin + i);
    const before = tf.memory().numTensors;
    for (let round = 0; round < roundsOf(SAMPLES, GEOMETRY); round++) {
      together((one, range, collectives) =>
        one.pictures(
          'test',
          lanesOf(range).map((lane) => block(lane, round)),
          collectives,
        ),
      );
    }
    if (facts.tasks.includes('zeroshot')) {
      together((one, range, collectives) =>
        one.classTexts(
          lanesOf(range).map((lane) => textBlock(lane, 0)),
          collectives,
        ),
      );
    }
    if (facts.tasks.includes('loss')) {
      together((one, range, collectives) =>
        one.lossBatch(
          lanesOf(range).map((lane) => lossLane(lane, config)),
          collectives,
        ),
      );
    }
    const figures = together((one, range, collectives) => one.figures(range, collectives));
    expect(tf.memory().numTensors).toBe(before);
    expect(made.trainer.weightsDigest()).toBe(digest);
    return { figures, made };
  }

  function lossLane(lane: number, config: RunConfig) {
    const { pixels, tokens, labels: classes } = block(lane, 0);
    const isViews = objectiveInputs(config).views === 2;
    return {
      lane,
      pixels: isViews ? Uint8Array.from([...pixels, ...pixels.map((value) => 255 - value)]) : pixels,
      tokens: isViews ? new Int32Array(0) : tokens,
      labels: classes.map((label) => Math.max(label, 0)),
    };
  }

  const CASES = [
    { objective: 'clip', loss: {}, tasks: ['zeroshot', 'retrieval', 'loss', 'knn', 'probe', 'health'] },
    { objective: 'simclr', loss: {}, tasks: ['loss', 'knn', 'probe', 'health'] },
    { objective: 'moco-v2', loss: { moco: { queue: 48 } }, tasks: ['loss', 'knn'] },
    { objective: 'moco-v3', loss: { moco: { hidden: 32, width: 16 } }, tasks: ['loss', 'health'] },
    { objective: 'supervised', loss: { classes: CLASSES }, tasks: ['loss', 'knn'] },
    { objective: 'mae', loss: { mae: { decoder: { width: 16, layers: 1, headWidth: 8 } } }, tasks: ['loss', 'knn'] },
  ] as const;

  it.each(CASES)(
    'give the same bits with 1, 2 and 3 workers of uneven lanes: $objective',
    ({ objective, loss, tasks }) => {
      const facts = { name: 'val', tasks: [...tasks], classes: CLASSES, templates: TEMPLATES, fitsElsewhere: false };
      const config = configOf(objective, loss);
      const seen = WORLDS.map((ranges): EvaluationFigures => {
        const { figures, made } = evaluateIn(ranges, config, facts);
        made.trainer.dispose();
        made.model.dispose();
        for (const other of figures) expect(other).toEqual(figures[0]);
        return figures[0]!;
      });
      expect(seen[1]).toEqual(seen[0]);
      expect(seen[2]).toEqual(seen[0]);
      const { metrics } = seen[0]!;
      expect(metrics['num_samples']).toBe(SAMPLES - 1);
      expect(metrics[`${objective}_val_loss`]).toBeGreaterThan(0);
      for (const value of Object.values(metrics)) expect(Number.isFinite(value)).toBe(true);
    },
  );

  it('are ranked as a plain computation over all of them ranks them', () => {
    const config = configOf('clip');
    const facts = {
      name: 'val',
      tasks: ['zeroshot', 'retrieval'],
      classes: CLASSES,
      templates: TEMPLATES,
      fitsElsewhere: false,
    } as const;
    const { figures, made } = evaluateIn(WORLDS[2]!, config, { ...facts, tasks: [...facts.tasks] });
    const model = made.model as ClipModel;
    const kept = pictures.flatMap((_, i) => (i === BROKEN ? [] : [i]));
    const { mean, std } = config.data;
    const all = Uint8Array.from(kept.flatMap((i) => [...pictures[i]!]));
    const x = pixelsToTensor(all, [kept.length, SIDE, SIDE, 3], { mean, std, precision: 'fp32' });
    const rowsOf = (tensor: tf.Tensor) => tensor.arraySync() as number[][];
    const images = rowsOf(model.encodeImage(x));
    const encoded = (texts: readonly Int32Array[]) =>
      rowsOf(model.encodeText(Int32Array.from(texts.flatMap((text) => [...text])), texts.length));
    const texts = encoded(kept.map((i) => captions[i]!));
    const templates = encoded(classTexts);
    const classes = Array.from({ length: CLASSES }, (_, c) => {
      const sum = templates[c]!.map((value, d) => value + templates[CLASSES + c]![d]!);
      return sum.map((value) => value / Math.hypot(...sum));
    });
    // Rounding apart: equal captions are encoded to the same bits, so ties are ties here too.
    const dot = (a: readonly number[], b: readonly number[]) =>
      a.reduce((sum, value, d) => sum + Math.fround(value) * Math.fround(b[d]!), 0);
    const places = (queries: number[][], keys: number[][], truth: (i: number) => number) =>
      queries.map((query, i) =>
        placeOf(
          Float32Array.from(keys, (key) => Math.round(1e5 * dot(query, key))),
          truth(i),
        ),
      );
    const { metrics } = figures[0]!;
    const expected = {
      ...retrievalMetrics(
        'image_to_text',
        places(images, texts, (i) => i),
      ),
      ...retrievalMetrics(
        'text_to_image',
        places(texts, images, (i) => i),
      ),
    };
    for (const [name, value] of Object.entries(expected))
      expect(Math.abs(metrics[name]! - value), name).toBeLessThan(0.11);
    const right = places(images, classes, (i) => labels[kept[i]!]!).filter((place) => place === 0).length;
    expect(Math.abs(metrics['zeroshot-val-top1']! - right / kept.length)).toBeLessThan(0.03);
    expect(metrics['zeroshot-val-top5']).toBe(1);
    made.trainer.dispose();
    made.model.dispose();
  });
});

describe('retrieval metrics', () => {
  it('are open_clip’s: ranks from 1, the median rounded down', () => {
    expect(retrievalMetrics('a', [0, 0, 4, 9])).toEqual({
      a_mean_rank: 4.25,
      a_median_rank: 3,
      'a_R@1': 0.5,
      'a_R@5': 0.75,
      'a_R@10': 1,
    });
  });

  it('count only what is counted, and ties for whoever comes first', () => {
    const similarities = Float32Array.of(0.5, 0.9, 0.5, 0.5);
    expect(placeOf(similarities, 2)).toBe(2);
    expect(placeOf(similarities, 0)).toBe(1);
    expect(placeOf(similarities, 2, Uint8Array.of(1, 0, 1, 1))).toBe(1);
  });
});
