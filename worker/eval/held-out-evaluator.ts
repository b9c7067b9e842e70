import type { EvalConfig } from '../../common/config/eval-config.ts';
import { assert } from '../../common/errors.ts';
import { pickedRows } from '../../common/picked-rows.ts';
import { type Engine, pixelsToTensor, type Tensor, tf } from '../../engine/index.ts';
import { classVotes, nearestNeighbours } from '../../models/linear/knn.ts';
import { fitLogistic, predictedClasses, scores } from '../../models/linear/logistic-regression.ts';
import type { Objective, TrainedModel } from '../objectives/objective.ts';
import type { BlockingCollectives } from '../train/blocking-collectives.ts';
import type { LaneEncoderOptions, LaneInput } from '../train/lane-encoder.ts';
import { type EmbeddingHealth, embeddingHealth } from './embedding-health.ts';
import { blockBegin, type EvalGeometry, roundsOf } from './eval-rounds.ts';
import { type EvaluatedModel, evaluatedModel } from './evaluated-model.ts';
import { GatheredRows } from './gathered-rows.ts';
import { HeldOutLoss } from './held-out-loss.ts';
import { placeOf, retrievalMetrics, shareWithin } from './retrieval.ts';

/** What is known of a held-out dataset before it is evaluated; the same on every worker. */
export interface EvalFacts {
  readonly name: string;
  readonly tasks: EvalConfig['datasets'][number]['tasks'];
  /** 0 where no task needs them. */
  readonly classes: number;
  readonly templates: number;
  /** Whether kNN and probe fit to pictures of another dataset. */
  readonly fitsElsewhere: boolean;
}

/** A held lane's block of held-out rows. */
export interface EvalBlock {
  readonly lane: number;
  /** uint8 RGB, [laneBatch, side, side, 3]; empty for texts. */
  readonly pixels: Uint8Array;
  /** [laneBatch, contextLength]; empty where no task needs texts. */
  readonly tokens: Int32Array;
  /** Class of each row; `NO_CLASS`, or `NO_ROW` for padding and broken pictures. */
  readonly labels: Int32Array;
}

export const NO_CLASS = -1;
export const NO_ROW = -2;

export interface EvaluatorOptions extends LaneEncoderOptions {
  readonly laneCount: number;
  readonly objective: string;
  readonly evaluation: EvalConfig;
}

export interface EvaluatorModules {
  readonly engine: Engine;
  readonly model: TrainedModel;
  readonly objective: Objective;
}

/** Metrics without the dataset's name, and the histograms of similarities. */
export interface EvaluationFigures {
  readonly metrics: Readonly<Record<string, number>>;
  readonly similarities: EmbeddingHealth['similarities'];
}

/** Samples that health looks at: its cost is their square. */
const HEALTH_SAMPLES_MAX = 512;
/** Columns of similarities at once. */
const TILE_COLUMNS = 4096;
/** A quick probe: accuracy moves little beyond this. */
const PROBE_TOLERANCE = 1e-3;
const PROBE_ITERATIONS_MAX = 200;

/**
 * One evaluation of the weights as they are, on the compute thread. Rows come in rounds of fixed blocks, are gathered in order, and ranked
 * block by block, each in the same shape whoever holds the lane: the figures have the same bits at any number of workers. Reads the model,
 * changes nothing. Legend: N rows, D embedding width, F feature width, C classes, B rows of a block.
 */
export class HeldOutEvaluator {
  readonly #options: EvaluatorOptions;
  readonly #engine: Engine;
  readonly #trained: TrainedModel;
  readonly #loss: HeldOutLoss;
  readonly #facts: EvalFacts;
  readonly #geometry: EvalGeometry;
  readonly #nextOp: () => number;
  #test: GatheredRows | undefined;
  #fit: GatheredRows | undefined;
  #classTexts: GatheredRows | undefined;
  #lossSum = 0;
  #lossBatches = 0;

  constructor(options: EvaluatorOptions, facts: EvalFacts, modules: EvaluatorModules, nextOp: () => number) {
    this.#options = options;
    this.#engine = modules.engine;
    this.#trained = modules.model;
    this.#loss = new HeldOutLoss(options, modules);
    this.#facts = facts;
    this.#geometry = { lanes: options.laneCount, laneBatch: options.laneBatch };
    this.#nextOp = nextOp;
  }

  /** A round of pictures, with their captions where a task compares the two. */
  pictures(part: 'test' | 'fit', blocks: readonly EvalBlock[], collectives: BlockingCollectives): void {
    const kinds = part === 'fit' ? ['features'] : this.#testKinds();
    for (const block of blocks) {
      const rows = tf.tidy(() => this.#encode(block, kinds));
      if (part === 'fit') this.#fit ??= this.#newRows(rows);
      else this.#test ??= this.#newRows(rows);
      const gathered = part === 'fit' ? this.#fit! : this.#test!;
      for (const [name, rows_BD] of Object.entries(rows)) {
        this.#engine.readInto(rows_BD, gathered.own(block.lane, name));
        rows_BD.dispose();
      }
      gathered.own(block.lane, 'label').set(block.labels);
    }
    (part === 'fit' ? this.#fit : this.#test)!.endRound(this.#nextOp(), collectives);
  }

  /** A round of class texts: template after template, each with all classes. */
  classTexts(blocks: readonly EvalBlock[], collectives: BlockingCollectives): void {
    for (const { lane, tokens } of blocks) {
      const text_BD = this.#model.embeddings!.text(tokens, this.#geometry.laneBatch);
      this.#classTexts ??= new GatheredRows([{ name: 'text', width: text_BD.shape[1] }], this.#geometry);
      this.#engine.readInto(text_BD, this.#classTexts.own(lane, 'text'));
      text_BD.dispose();
    }
    this.#classTexts!.endRound(this.#nextOp(), collectives);
  }

  /** A global batch of held-out data, as a step would take it. */
  lossBatch(lanes: readonly LaneInput[], collectives: BlockingCollectives): void {
    this.#lossSum += this.#loss.sum(lanes, collectives, this.#nextOp);
    this.#lossBatches++;
  }

  /** What all rounds add up to. @param held lanes of this worker, [begin, end) */
  figures(held: { readonly begin: number; readonly end: number }, collectives: BlockingCollectives): EvaluationFigures {
    const metrics: Record<string, number> = {};
    let similarities: EmbeddingHealth['similarities'] = [];
    const tasks = new Set(this.#facts.tasks);
    if (tasks.has('loss')) {
      const samples = this.#lossBatches * this.#geometry.lanes * this.#geometry.laneBatch;
      metrics[`${this.#options.objective}_val_loss`] = this.#lossSum / samples;
    }
    if (this.#test === undefined) return { metrics, similarities };
    const labels_N = Int32Array.from(this.#test.all('label'));
    metrics['num_samples'] = labels_N.filter((label) => label !== NO_ROW).length;
    if (tasks.has('zeroshot') || tasks.has('retrieval'))
      Object.assign(metrics, this.#ranked(held, labels_N, collectives));
    if (tasks.has('knn') || tasks.has('probe')) Object.assign(metrics, this.#classified(labels_N));
    if (tasks.has('health')) {
      const health = this.#health(labels_N);
      Object.assign(metrics, health.measures);
      similarities = health.similarities;
    }
    return { metrics, similarities };
  }

  /** Asked for where pictures or texts are encoded: a loss alone needs no tower of a certain kind. */
  get #model(): EvaluatedModel {
    return evaluatedModel(this.#trained);
  }

  #testKinds(): string[] {
    const tasks = new Set(this.#facts.tasks);
    const { embeddings } = this.#model;
    const health = tasks.has('health');
    const wanted = {
      features: tasks.has('knn') || tasks.has('probe') || (health && embeddings === undefined),
      image: embeddings !== undefined && (tasks.has('zeroshot') || tasks.has('retrieval') || health),
      text: embeddings !== undefined && (tasks.has('retrieval') || health),
    };
    return Object.entries(wanted).flatMap(([kind, is]) => (is ? [kind] : []));
  }

  #newRows(rows: Readonly<Record<string, Tensor>>): GatheredRows {
    const kinds = Object.entries(rows).map(([name, tensor]) => ({ name, width: tensor.shape[1]! }));
    return new GatheredRows([...kinds, { name: 'label', width: 1 }], this.#geometry);
  }

  #encode({ pixels, tokens }: EvalBlock, kinds: readonly string[]): Record<string, tf.Tensor2D> {
    const { laneBatch, imageSide, mean, std, precision } = this.#options;
    const rows: Record<string, tf.Tensor2D> = {};
    const x_BHWC = pixelsToTensor(pixels, [laneBatch, imageSide, imageSide, 3], { mean, std, precision });
    for (const kind of kinds) {
      if (kind === 'features') rows[kind] = this.#model.features(x_BHWC);
      else if (kind === 'image') rows[kind] = this.#model.embeddings!.image(x_BHWC);
      else rows[kind] = this.#model.embeddings!.text(tokens, laneBatch);
    }
    return rows;
  }

  /** Zero-shot classification and retrieval both ways; every lane ranks its own rows against all. */
  #ranked(
    held: { readonly begin: number; readonly end: number },
    labels_N: Int32Array,
    collectives: BlockingCollectives,
  ): Record<string, number> {
    const test = this.#test!;
    const { laneBatch } = this.#geometry;
    const counted = Uint8Array.from(labels_N, (label) => (label === NO_ROW ? 0 : 1));
    const image_ND = this.#matrix(test, 'image');
    const text_ND =
      test.has('text') && this.#facts.tasks.includes('retrieval') ? this.#matrix(test, 'text') : undefined;
    const class_CD = this.#facts.tasks.includes('zeroshot') ? this.#classMatrix() : undefined;
    const directions = [
      ...(class_CD ? [{ name: 'zeroshot', queries: image_ND, keys: class_CD, toClasses: true }] : []),
      ...(text_ND ? [{ name: 'image_to_text', queries: image_ND, keys: text_ND, toClasses: false }] : []),
      ...(text_ND ? [{ name: 'text_to_image', queries: text_ND, keys: image_ND, toClasses: false }] : []),
    ];
    const places = new GatheredRows(
      directions.map(({ name }) => ({ name, width: 1 })),
      this.#geometry,
    );
    try {
      for (let round = 0; round < roundsOf(labels_N.length, this.#geometry); round++) {
        for (let lane = held.begin; lane < held.end; lane++) {
          const begin = blockBegin(round, lane, this.#geometry);
          for (const { name, queries, keys, toClasses } of directions) {
            const rows = this.#similarities(queries, begin, keys);
            const own = places.own(lane, name);
            for (let row = 0; row < laneBatch; row++) {
              const truth = toClasses ? labels_N[begin + row]! : begin + row;
              const isAsked = counted[begin + row] === 1 && truth >= 0;
              own[row] = isAsked ? placeOf(rows[row]!, truth, toClasses ? undefined : counted) : Number.NaN;
            }
          }
        }
        places.endRound(this.#nextOp(), collectives);
      }
    } finally {
      tf.dispose([image_ND, ...(text_ND ? [text_ND] : []), ...(class_CD ? [class_CD] : [])]);
    }
    const metrics: Record<string, number> = {};
    for (const { name, toClasses } of directions) {
      const found = Array.from(places.all(name)).filter((place) => !Number.isNaN(place));
      if (!toClasses) Object.assign(metrics, retrievalMetrics(name, found));
      else for (const k of [1, 5]) metrics[`zeroshot-val-top${k}`] = shareWithin(found, k);
    }
    return metrics;
  }

  #matrix(rows: GatheredRows, name: string): tf.Tensor2D {
    const values = rows.all(name);
    const count = rows.all('label').length;
    return tf.tensor2d(values, [count, values.length / count]);
  }

  /** Cosines of a block of queries with all keys, one array per query. */
  #similarities(queries_ND: tf.Tensor2D, begin: number, keys_ND: tf.Tensor2D): Float32Array[] {
    const { laneBatch } = this.#geometry;
    const [count, width] = keys_ND.shape;
    const rows = Array.from({ length: laneBatch }, () => new Float32Array(count));
    for (let from = 0; from < count; from += TILE_COLUMNS) {
      const columns = Math.min(TILE_COLUMNS, count - from);
      const tile = new Float32Array(laneBatch * columns);
      tf.tidy(() => {
        const queries_BD = tf.slice(queries_ND, [begin, 0], [laneBatch, width]);
        const keys_CD = tf.slice(keys_ND, [from, 0], [columns, width]);
        this.#engine.readInto(tf.matMul(queries_BD, keys_CD, false, true), tile);
      });
      for (const [row, out] of rows.entries()) out.set(tile.subarray(row * columns, (row + 1) * columns), from);
    }
    return rows;
  }

  /** Each class is the mean of its templates' embeddings, brought to unit length again (Radford et al. 2021, §3.1.4). */
  #classMatrix(): tf.Tensor2D {
    const { classes, templates } = this.#facts;
    const texts = this.#classTexts!.all('text');
    const padded = roundsOf(classes * templates, this.#geometry) * this.#geometry.lanes * this.#geometry.laneBatch;
    const width = texts.length / padded;
    const sums = new Float32Array(classes * width);
    for (let i = 0; i < classes * templates * width; i++) sums[i % sums.length]! += texts[i]!;
    for (let begin = 0; begin < sums.length; begin += width) {
      const row = sums.subarray(begin, begin + width);
      const norm = Math.sqrt(row.reduce((sum, value) => sum + value * value, 0)) || 1;
      for (let d = 0; d < width; d++) row[d]! /= norm;
    }
    return tf.tensor2d(sums, [classes, width]);
  }

  #classified(labels_N: Int32Array): Record<string, number> {
    const features = this.#test!.all('features');
    const width = features.length / labels_N.length;
    const labelled = Array.from(labels_N.keys()).filter((row) => labels_N[row]! >= 0);
    const other = this.#fit && Int32Array.from(this.#fit.all('label'));
    const fit = other
      ? rowsAt(
          this.#fit!.all('features'),
          other,
          Array.from(other.keys()).filter((row) => other[row]! >= 0),
          width,
        )
      : rowsAt(
          features,
          labels_N,
          labelled.filter((_, i) => i % 2 === 0),
          width,
        );
    const test = rowsAt(features, labels_N, other ? labelled : labelled.filter((_, i) => i % 2 === 1), width);
    const { classes, tasks } = this.#facts;
    const { knn, probe } = this.#options.evaluation;
    const metrics: Record<string, number> = {};
    if (tasks.includes('knn')) {
      const neighbours = nearestNeighbours(fit, test.features_ND, { count: knn.neighbours });
      const votes = classVotes(neighbours, fit.labels_N, { classes, temperature: knn.temperature });
      metrics['knn_top1'] = agreement(predictedClasses(votes, classes), test.labels_N);
    }
    if (tasks.includes('probe')) {
      const quick = { classes, l2: probe.l2, tolerance: PROBE_TOLERANCE, iterationsMax: PROBE_ITERATIONS_MAX };
      metrics['linear_probe_top1'] = scores(fitLogistic(fit, quick).classifier, test).accuracy;
    }
    return metrics;
  }

  #health(labels_N: Int32Array): EmbeddingHealth {
    const test = this.#test!;
    const rows = Array.from(labels_N.keys()).filter((row) => labels_N[row] !== NO_ROW);
    const count = Math.min(rows.length, HEALTH_SAMPLES_MAX);
    const chosen = Array.from({ length: count }, (_, i) => rows[Math.floor((i * rows.length) / count)]!);
    const take = (name: string) => {
      const all = test.all(name);
      const width = all.length / labels_N.length;
      return { width, rows_ND: rowsAt(all, labels_N, chosen, width).features_ND };
    };
    if (!test.has('text')) return embeddingHealth([{ name: 'features', ...take('features') }]);
    const text = take('text');
    return embeddingHealth([
      { name: 'image', ...take('image'), partners_ND: text.rows_ND },
      { name: 'text', ...text },
    ]);
  }
}

function rowsAt(values: Float32Array, labels_N: Int32Array, rows: readonly number[], width: number) {
  assert(values.length === labels_N.length * width, 'every row has a label', { values: values.length, width });
  const features_ND = pickedRows(values, width, rows);
  return { features_ND, labels_N: Int32Array.from(rows, (row) => labels_N[row]!), dimensions: width };
}

function agreement(predicted: Int32Array, truth: Int32Array): number {
  return predicted.filter((one, i) => one === truth[i]).length / truth.length;
}
