import { CoveyError, throwIfAborted } from '../../common/errors.ts';
import { mixKey } from '../../common/random.ts';
import type { Dataset, LocatedSample } from '../../worker/data/dataset.ts';
import type { PictureSample } from './picture-source.ts';

export interface LabelledSample extends PictureSample {
  /** Index among the set's classes. */
  readonly label: number;
}

export interface LabelledSet {
  /** In order of their indices. */
  readonly classes: readonly string[];
  readonly samples: readonly LabelledSample[];
  /** Samples of the dataset that have no label and were left out. */
  readonly unlabelled: number;
}

export interface LabelOptions {
  /** A key of the samples' meta to take in place of `label`. */
  readonly metaKey?: string | undefined;
  /** The label space, in order; numbers count in it where no name is a number. Default: the labels that occur, sorted. */
  readonly classes?: readonly string[] | undefined;
  /** The first caption of a sample that has no label is its label. Default false. */
  readonly orCaption?: boolean | undefined;
}

const EXAMPLES_MAX = 3;

/**
 * The labelled samples of a dataset.
 * @throws CoveyError INVALID_ARGUMENT for a dataset without labels, with a single class, or with labels that are not among `classes`
 */
export async function readLabelledSet(
  dataset: Dataset,
  { metaKey, classes: given, orCaption = false }: LabelOptions,
  signal?: AbortSignal,
): Promise<LabelledSet> {
  const found: { located: LocatedSample; label: string }[] = [];
  for await (const located of dataset.samples(signal)) {
    throwIfAborted(signal);
    const { record } = located;
    const own = metaKey === undefined ? record.label : record.meta?.[metaKey];
    const label = own ?? (orCaption ? record.captions[0] : undefined);
    if (label !== undefined && label !== null) found.push({ located, label: String(label) });
  }
  const what = `${metaKey === undefined ? '`label`' : `meta.${metaKey}`}${orCaption ? ' or a caption' : ''}`;
  if (found.length === 0) {
    throw refused(
      `none of the ${dataset.sampleCount} samples of ${dataset.manifest.name} has a ${what}; pack it with labels, or name a key of the samples' meta with --label-key`,
    );
  }
  const classes = given ?? [...new Set(found.map(({ label }) => label))].sort();
  if (classes.length < 2) throw refused(`there is a single class, ${classes[0] ?? 'none'}; at least two are needed`);
  const index = new Map(classes.map((name, i) => [name, i]));
  if (given !== undefined && !given.some(isNumber)) for (const i of given.keys()) index.set(String(i), i);
  const strange = found.filter(({ label }) => !index.has(label));
  if (strange.length > 0) {
    const examples = strange.slice(0, EXAMPLES_MAX).map(({ located, label }) => `${located.sampleId} is '${label}'`);
    throw refused(
      `${strange.length} labels are not among the ${classes.length} classes: ${examples.join(', ')}; mend the labels or the list of classes`,
    );
  }
  const samples = found.map(({ located, label }) => ({ located, label: index.get(label)! }));
  return { classes, samples, unlabelled: dataset.sampleCount - samples.length };
}

const isNumber = (name: string) => /^\d+$/.test(name);

function refused(reason: string): CoveyError {
  return new CoveyError('INVALID_ARGUMENT', `Cannot use the labelled dataset: ${reason}`);
}

/**
 * Splits by class in proportion: `share` of each class, at least one sample where it has two, into `chosen`. Which ones is a function of seed and
 * place in the dataset alone; a larger share contains a smaller one.
 */
export function splitByClass(
  samples: readonly LabelledSample[],
  share: number,
  seed: number,
): { readonly chosen: LabelledSample[]; readonly rest: LabelledSample[] } {
  return cut(samples, seed, (count) => (count < 2 ? 0 : Math.min(count - 1, Math.max(1, Math.round(share * count)))));
}

/** At most `shots` samples of each class. */
export function fewShots(samples: readonly LabelledSample[], shots: number, seed: number): LabelledSample[] {
  return cut(samples, seed, (count) => Math.min(count, shots)).chosen;
}

/** `fraction` of each class, at least one of each: what 1 % of the labels means. */
export function fractionByClass(samples: readonly LabelledSample[], fraction: number, seed: number): LabelledSample[] {
  return cut(samples, seed, (count) => Math.max(1, Math.round(fraction * count))).chosen;
}

function cut(samples: readonly LabelledSample[], seed: number, countOf: (size: number) => number) {
  const byClass = new Map<number, LabelledSample[]>();
  for (const sample of samples) {
    const members = byClass.get(sample.label);
    if (members === undefined) byClass.set(sample.label, [sample]);
    else members.push(sample);
  }
  const chosen = new Set<LabelledSample>();
  for (const members of byClass.values()) {
    const keyed = members.map((sample) => ({ sample, key: mixKey('split', seed, sample.located.sampleIndex) }));
    keyed.sort((a, b) => a.key[0] - b.key[0] || a.key[1] - b.key[1]);
    for (const { sample } of keyed.slice(0, countOf(members.length))) chosen.add(sample);
  }
  // In the dataset's order, so that the same samples are always read alike.
  return { chosen: samples.filter((one) => chosen.has(one)), rest: samples.filter((one) => !chosen.has(one)) };
}
