export interface ClassSpread {
  readonly name: string;
  readonly pictures: number;
  /** Share of its pictures that are right: least, mean and largest over the templates. */
  readonly least: number;
  readonly mean: number;
  readonly most: number;
  /** Templates of the least and the largest, the first ones. */
  readonly worst: string;
  readonly best: string;
}

export interface Spread {
  readonly least: number;
  readonly mean: number;
  readonly most: number;
  /** Of the population: over the templates. */
  readonly deviation: number;
}

export interface Flips {
  /** Pictures that at least one template classifies otherwise than the reference, a share. */
  readonly pictures: number;
  /** Mean over templates of the share of pictures they classify otherwise. */
  readonly meanDisagreement: number;
  /** Pictures in order of how many templates disagree, the most first, those without any left out: row and how many. */
  readonly most: readonly { readonly row: number; readonly templates: number }[];
}

export interface Sensitivity {
  readonly accuracy: Spread;
  readonly flips: Flips;
  /** Every class with pictures, that which changes most first. */
  readonly classes: readonly ClassSpread[];
}

export interface SensitivityOptions {
  readonly labels_N: Int32Array;
  readonly classNames: readonly string[];
  /** What templates are compared with: the predictions of all of them together. */
  readonly reference_N: Int32Array;
}

const FLIPS_SHOWN = 100;

/** Gathers what each template predicts, one after the other, in memory that does not grow with their number. */
export class SensitivityCounter {
  readonly #options: SensitivityOptions;
  readonly #flips_N: Int32Array;
  readonly #pictures_K: Int32Array;
  readonly #classes: { least: number; most: number; sum: number; worst: string; best: string }[];
  readonly #accuracies: number[] = [];
  #disagreements = 0;

  constructor(options: SensitivityOptions) {
    const { labels_N, classNames } = options;
    this.#options = options;
    this.#flips_N = new Int32Array(labels_N.length);
    this.#pictures_K = new Int32Array(classNames.length);
    for (const label of labels_N) this.#pictures_K[label]!++;
    this.#classes = classNames.map(() => ({ least: 2, most: -1, sum: 0, worst: '', best: '' }));
  }

  /** @returns share of the pictures that are classified otherwise than by the reference */
  add(template: string, predicted_N: Int32Array): number {
    const { labels_N, reference_N } = this.#options;
    const right_K = new Int32Array(this.#pictures_K.length);
    let right = 0;
    let flips = 0;
    predicted_N.forEach((predicted, row) => {
      if (predicted === labels_N[row]) {
        right++;
        right_K[predicted]!++;
      }
      if (predicted === reference_N[row]) return;
      flips++;
      this.#flips_N[row]!++;
    });
    this.#accuracies.push(right / labels_N.length);
    this.#disagreements += flips / labels_N.length;
    this.#classes.forEach((spread, k) => {
      if (this.#pictures_K[k] === 0) return;
      const share = right_K[k]! / this.#pictures_K[k]!;
      spread.sum += share;
      if (share < spread.least) Object.assign(spread, { least: share, worst: template });
      if (share > spread.most) Object.assign(spread, { most: share, best: template });
    });
    return flips / labels_N.length;
  }

  result(): Sensitivity {
    const templates = this.#accuracies.length;
    const mean = this.#accuracies.reduce((a, b) => a + b, 0) / templates;
    const variance = this.#accuracies.reduce((sum, one) => sum + (one - mean) ** 2, 0) / templates;
    const flipped = [...this.#flips_N]
      .map((count, row) => ({ row, templates: count }))
      .filter((one) => one.templates > 0);
    const classes = this.#classes.flatMap(({ sum, ...spread }, k): ClassSpread[] => {
      const pictures = this.#pictures_K[k]!;
      return pictures === 0 ? [] : [{ name: this.#options.classNames[k]!, pictures, mean: sum / templates, ...spread }];
    });
    return {
      accuracy: {
        least: Math.min(...this.#accuracies),
        mean,
        most: Math.max(...this.#accuracies),
        deviation: Math.sqrt(variance),
      },
      flips: {
        pictures: flipped.length / this.#flips_N.length,
        meanDisagreement: this.#disagreements / templates,
        most: flipped.sort((a, b) => b.templates - a.templates || a.row - b.row).slice(0, FLIPS_SHOWN),
      },
      // Of equal spreads the class with more pictures says more.
      classes: classes.sort((a, b) => b.most - b.least - (a.most - a.least) || b.pictures - a.pictures),
    };
  }
}
