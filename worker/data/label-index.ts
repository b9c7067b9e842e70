import type { RunConfig } from '../../common/config/run-config.ts';
import { CoveyError } from '../../common/errors.ts';
import type { IndexedSample } from './manifest.ts';
import type { WeightedDataset } from './sample-set.ts';

/** What `loss.classes` says: how many, or their names in order. */
export type Classes = NonNullable<RunConfig['loss']['classes']>;

/** The class of a sample as an index, or why it has none. Numbers count as themselves unless the classes have names. */
export class LabelIndex {
  readonly #classes: Classes;
  readonly #indices: ReadonlyMap<string, number>;

  /** `names`: those of the dataset's manifest, for text labels where `classes` says only how many. */
  constructor(classes: Classes, names: readonly string[] = []) {
    this.#classes = classes;
    this.#indices = new Map((typeof classes === 'number' ? names : classes).map((name, index) => [name, index]));
  }

  indexOf({ label }: IndexedSample): number | 'label-missing' | 'label-unknown' {
    if (label === undefined) return 'label-missing';
    if (typeof this.#classes !== 'number' || typeof label === 'string')
      return this.#indices.get(String(label)) ?? 'label-unknown';
    return label >= 0 && label < this.#classes ? label : 'label-unknown';
  }
}

/**
 * Whether the first sample of a dataset has a usable label: most datasets have labels on all samples or on none, and a look at one costs
 * one index. A single sample without one is replaced like a broken picture.
 * @throws CoveyError CONFIG_INVALID
 */
export async function checkLabels(
  { name, dataset }: Pick<WeightedDataset, 'name' | 'dataset'>,
  classes: Classes,
  signal?: AbortSignal,
): Promise<void> {
  const { sampleId, record } = await dataset.locate(0, signal);
  const names = dataset.classes;
  const found = new LabelIndex(classes, names).indexOf(record);
  if (typeof classes === 'number' && names !== undefined && names.length !== classes) {
    const message = `must be ${names.length}, as many as the manifest of dataset ${name} names, is ${classes}`;
    throw new CoveyError('CONFIG_INVALID', `Cannot use loss.classes: it ${message}`, {
      fields: { problems: [{ path: 'loss.classes', message, value: classes }] },
    });
  }
  if (typeof found === 'number') return;
  const reason =
    found === 'label-missing'
      ? 'the dataset has no labels; pack it with `label` in the samples’ json, `cls`, or `--labels folder`'
      : `the label of its first sample is not among them: ${JSON.stringify(record.label)}`;
  throw new CoveyError('CONFIG_INVALID', `Cannot use loss.classes with dataset ${name}: ${reason} (${sampleId})`, {
    fields: { problems: [{ path: 'loss.classes', message: reason, value: record.label }], sampleId },
  });
}
