import { mixKey } from '../../common/random.ts';
import type { PictureSample } from '../data/picture-source.ts';

export interface PlannedSample<S extends PictureSample> {
  readonly sample: S;
  readonly epoch: number;
  /** One 32-bit seed of its own, a pure function of (seed, epoch, sample). */
  readonly seed: number;
}

export interface BatchPlanOptions {
  readonly seed: number;
  readonly batch: number;
  /** Plans of the same seed that must not go in step, such as those of two datasets, have streams of their own. Default `order`. */
  readonly stream?: string;
}

/**
 * Which samples form which batch: a pure function of (samples, seed, step). One epoch's order follows the other without a seam, so a batch may
 * be larger than a handful of labelled samples; they then come several times, augmented differently.
 */
export class BatchPlan<S extends PictureSample> {
  readonly #samples: readonly S[];
  readonly #seed: number;
  readonly #batch: number;
  readonly #stream: string;
  #order: { readonly epoch: number; readonly samples: readonly S[] } | undefined;

  constructor(samples: readonly S[], options: BatchPlanOptions) {
    this.#samples = samples;
    this.#seed = options.seed;
    this.#batch = options.batch;
    this.#stream = options.stream ?? 'order';
  }

  batchOf(step: number): PlannedSample<S>[] {
    return Array.from({ length: this.#batch }, (_, row) => {
      const place = step * this.#batch + row;
      const epoch = Math.floor(place / this.#samples.length);
      const sample = this.#orderOf(epoch)[place % this.#samples.length]!;
      return { sample, epoch, seed: mixKey('sample', this.#seed, epoch, sample.located.sampleIndex)[0] };
    });
  }

  #orderOf(epoch: number): readonly S[] {
    if (this.#order?.epoch === epoch) return this.#order.samples;
    const keyed = this.#samples.map((sample) => ({
      sample,
      key: mixKey(this.#stream, this.#seed, epoch, sample.located.sampleIndex),
    }));
    keyed.sort((a, b) => a.key[0] - b.key[0] || a.key[1] - b.key[1]);
    const samples = keyed.map(({ sample }) => sample);
    this.#order = { epoch, samples };
    return samples;
  }
}
