import type { RunConfig } from '../../common/config/run-config.ts';
import { CoveyError } from '../../common/errors.ts';
import type { Dataset } from './dataset.ts';
import type { IndexedSample } from './manifest.ts';

/** What `loss.classes` says: how many, or their names in order. */
export type Classes = NonNullable<RunConfig['loss']['classes']>;

/** The class of a sample as an index, or why it has none. Numbers count as themselves unless the classes have names. */
export class LabelIndex {
  readonly #classes: Classes;
  readonly #indices: ReadonlyMap<string, number>;

  constructor(classes: Classes) {
    this.#classes = classes;
    this.#indices = new Map(typeof classes === 'number' ? [] : classes.map((name, index) => [name, index]));
  }

  indexOf({ label }: IndexedSample): number | 'label-missing' | 'label-unknown' {
    if (label === undefined) return 'label-missing';
    if (typeof this.#classes !== 'number') return this.#indices.get(String(label)) ?? 'label-unknown';
    return typeof label === 'number' && label >= 0 && label < this.#classes ? label : 'label-unknown';
  }
}

/**
 * Whether the first sample of a dataset has a usable label: most datasets have labels on all samples or on none, and a look at one costs
 * one index. A single sample without one is replaced like a broken picture.
 * @throws CoveyError CONFIG_INVALID
 */
export async function checkLabels(dataset: Dataset, classes: Classes, signal?: AbortSignal): Promise<void> {
  const { sampleId, record } = await dataset.locate(0, signal);
  const found = new LabelIndex(classes).indexOf(record);
  if (typeof found === 'number') return;
  const reason =
    found === 'label-missing'
      ? 'the dataset has no labels; pack it with `label` in the samples’ json, or `cls`'
      : `the label of its first sample is not among them: ${JSON.stringify(record.label)}`;
  throw new CoveyError('CONFIG_INVALID', `Cannot use loss.classes: ${reason} (${sampleId})`, {
    fields: { problems: [{ path: 'loss.classes', message: reason, value: record.label }], sampleId },
  });
}
