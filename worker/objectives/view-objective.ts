import { type Engine, type Tensor, type Tensor1D, tf } from '../../engine/index.ts';
import type { LanesTogether } from '../../models/vision/lanes-together.ts';
import type { ViewModel } from '../../models/vision/view-model.ts';
import type { EncoderInput, GlobalBatch, Lane, LaneGradients, Objective } from './objective.ts';
import type { RowRange } from './tiles.ts';
import { type ViewBatch, viewBatch, viewGradients, viewLogSumExps } from './view-contrast.ts';

/** Augmentations drawn per sample (Chen et al. 2020, algorithm 1). */
export const VIEWS = 2;

export interface ViewObjectiveOptions {
  readonly temperature: number;
  /**
   * `mean`: over all 2N views, as the papers write it (Chen et al. 2020, algorithm 1; Khosla et al.'s code; lightly). `sum`: the two
   * directions' means added, twice that, as google-research/simclr's `objective.py`.
   */
  readonly viewLoss: 'mean' | 'sum';
  /** `none` leaves the denominators out: nothing pushes views apart, and they collapse. For ablations. Default all. */
  readonly negatives?: 'all' | 'none';
}

/**
 * What SimCLR and SupCon have in common: two views of a picture, a projection head whose output is contrasted, one log-sum-exp per
 * view exchanged. They differ in which views belong together, which is all a subclass says.
 */
export abstract class ViewObjective implements Objective {
  abstract readonly inputs: Objective['inputs'];
  readonly outputs: Objective['outputs'];
  readonly exchanged: Objective['exchanged'];
  readonly scalars = [];
  /** Mean similarity of a view with those it belongs to. */
  readonly metrics = ['positive_similarity'];
  readonly #options: ViewObjectiveOptions;
  readonly #engine: Engine;
  readonly #model: ViewModel;

  constructor(options: ViewObjectiveOptions, modules: { readonly engine: Engine; readonly model: ViewModel }) {
    this.#options = options;
    this.#engine = modules.engine;
    this.#model = modules.model;
    this.exchanged = options.negatives === 'none' ? [] : [{ name: 'lse', perSample: VIEWS, width: 1 }];
    this.outputs = [{ name: 'projection', perSample: VIEWS, width: modules.model.outputWidth, gathered: true }];
  }

  /** The class of every sample of the global batch: views of one class belong together. */
  protected abstract classes(batch: GlobalBatch): Int32Array;

  encode({ pixels_BHWC, dropSeeds: seeds }: EncoderInput): Tensor[] {
    return [this.#model.project(pixels_BHWC, { training: true, seeds })];
  }

  encodeTogether(inputs: readonly EncoderInput[], together: LanesTogether): Tensor[][] {
    const pixels = inputs.map(({ pixels_BHWC }) => pixels_BHWC);
    return this.#model.projectTogether(pixels, together).map((z) => [z]);
  }

  exchange(batch: GlobalBatch, lane: Lane, [lse]: readonly Float32Array[]): void {
    this.#withViews(batch, lane, (views, rows) => {
      const lse_R = viewLogSumExps(views, rows, this.#options.temperature);
      this.#engine.readInto(lse_R, lse!);
      lse_R.dispose();
    });
  }

  laneGradients(batch: GlobalBatch, lane: Lane, [lse_K]: readonly Tensor1D[]): LaneGradients {
    const { temperature, viewLoss } = this.#options;
    const perSample = viewLoss === 'sum' ? 1 : 1 / VIEWS;
    const { dz_RD, lossSum, positiveSimilaritySum } = this.#withViews(batch, lane, (views, rows) =>
      viewGradients(this.#engine, views, lse_K, rows, temperature),
    );
    const scaled_RD = tf.mul(dz_RD, perSample);
    dz_RD.dispose();
    return {
      dOutputs: [scaled_RD],
      lossSum: lossSum * perSample,
      dScalars: [],
      metricSums: [positiveSimilaritySum / VIEWS],
    };
  }

  similarityScale(): number {
    return 1 / this.#options.temperature;
  }

  #withViews<T>(batch: GlobalBatch, { samples }: Lane, use: (views: ViewBatch, rows: RowRange) => T): T {
    const views = viewBatch(batch.gathered[0]!, classOfViews(this.classes(batch), samples.count));
    try {
      return use(views, { begin: VIEWS * samples.begin, count: VIEWS * samples.count });
    } finally {
      tf.dispose([views.class_K, views.index_K, views.positives_K]);
    }
  }
}

/** Classes of all rows as they are gathered: lane by lane, first views before second ones. */
function classOfViews(classes: Int32Array, laneBatch: number): Int32Array {
  const out = new Int32Array(VIEWS * classes.length);
  for (let begin = 0; begin < classes.length; begin += laneBatch) {
    const lane = classes.subarray(begin, begin + laneBatch);
    for (let view = 0; view < VIEWS; view++) out.set(lane, VIEWS * begin + view * laneBatch);
  }
  return out;
}
