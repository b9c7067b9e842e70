import { mixKey } from '../../common/random.ts';
import type { LabelledSample } from '../data/labelled-set.ts';

export interface PlannedSample {
  readonly sample: LabelledSample;
  readonly epoch: number;
  /** One 32-bit seed of its own, a pure function of (seed, epoch, sample). */
  readonly seed: number;
}

/**
 * Which samples form which batch: a pure function of (samples, seed, step). One epoch's order follows the other without a seam, so a batch may
 * be larger than a handful of labelled samples; they then come several times, augmented differently.
 */
export class BatchPlan {
  readonly #samples: readonly LabelledSample[];
  readonly #seed: number;
  readonly #batch: number;
  #order: { readonly epoch: number; readonly samples: readonly LabelledSample[] } | undefined;

  constructor(samples: readonly LabelledSample[], options: { readonly seed: number; readonly batch: number }) {
    this.#samples = samples;
    this.#seed = options.seed;
    this.#batch = options.batch;
  }

  batchOf(step: number): PlannedSample[] {
    return Array.from({ length: this.#batch }, (_, row) => {
      const place = step * this.#batch + row;
      const epoch = Math.floor(place / this.#samples.length);
      const sample = this.#orderOf(epoch)[place % this.#samples.length]!;
      return { sample, epoch, seed: mixKey('sample', this.#seed, epoch, sample.located.sampleIndex)[0] };
    });
  }

  #orderOf(epoch: number): readonly LabelledSample[] {
    if (this.#order?.epoch === epoch) return this.#order.samples;
    const keyed = this.#samples.map((sample) => ({
      sample,
      key: mixKey('order', this.#seed, epoch, sample.located.sampleIndex),
    }));
    keyed.sort((a, b) => a.key[0] - b.key[0] || a.key[1] - b.key[1]);
    const samples = keyed.map(({ sample }) => sample);
    this.#order = { epoch, samples };
    return samples;
  }
}
