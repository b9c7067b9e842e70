import { CoveyError } from '../../common/errors.ts';

/** Before so many samples a share says nothing. */
const SAMPLES_MIN = 1000;

/** Counts broken samples against the configured share. A dataset that is mostly broken must stop the run, not train on replacements. */
export class BadSampleBudget {
  readonly #shareMax: number;
  #consumed = 0;
  #replaced = 0;

  constructor(shareMax: number) {
    this.#shareMax = shareMax;
  }

  /** @returns the error that ends the run once the share is exceeded, else undefined. */
  add(consumed: number, replaced: number): CoveyError | undefined {
    this.#consumed += consumed;
    this.#replaced += replaced;
    const share = this.#replaced / this.#consumed;
    if (this.#consumed < SAMPLES_MIN || share <= this.#shareMax) return undefined;
    const percent = (value: number) => `${(100 * value).toFixed(2)} %`;
    return new CoveyError(
      'DATA_CORRUPT',
      `Cannot go on: ${percent(share)} of the samples are broken, data.badSamplesMax allows ${percent(this.#shareMax)}; pack the dataset again or raise the limit`,
      { fields: { consumed: this.#consumed, replaced: this.#replaced, badSamplesMax: this.#shareMax } },
    );
  }
}
