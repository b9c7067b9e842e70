import { describe, expect, it } from 'vitest';
import { fewShots, fractionByClass, readLabelledSet, splitByClass } from '../../transfer/data/labelled-set.ts';
import type { Dataset } from '../../worker/data/dataset.ts';
import { makeDataset, memoryStore, picture } from '../support/datasets.ts';

async function dataset(labels: readonly (string | undefined)[]): Promise<Dataset> {
  const image = await picture(1, { width: 8, height: 8 });
  return makeDataset(memoryStore(), [
    labels.map((label) => ({ image, caption: 'x', ...(label === undefined ? {} : { label }) })),
  ]);
}

describe('a labelled set', () => {
  it('has the classes in order and leaves samples without a label out', async () => {
    const set = await readLabelledSet(await dataset(['b', undefined, 'a', 'b']), {});
    expect(set.classes).toEqual(['a', 'b']);
    expect(set.samples.map(({ label }) => label)).toEqual([1, 0, 1]);
    expect(set.unlabelled).toBe(1);
  });

  it.each([
    ['no labels', [undefined, undefined], {}, /none of the 2 samples of test has a `label`/],
    ['no such key in meta', ['a', 'b'], { metaKey: 'category' }, /has a meta.category/],
    ['a single class', ['a', 'a'], {}, /a single class, a/],
    [
      'labels outside the label space',
      ['a', 'c', 'c'],
      { classes: ['a', 'b'] },
      /2 labels are not among the 2 classes: 0.tar\/1 is 'c'/,
    ],
  ])('is refused with %s', async (_, labels, options, message) => {
    await expect(readLabelledSet(await dataset(labels), options)).rejects.toThrow(message);
  });
});

describe('splits', () => {
  it('take their share of every class, the same for a seed, and larger ones contain smaller ones', async () => {
    const labels = Array.from({ length: 60 }, (_, i) => (i < 40 ? 'many' : i < 59 ? 'few' : 'one'));
    const { samples } = await readLabelledSet(await dataset(labels), {});
    const { chosen, rest } = splitByClass(samples, 0.2, 1);
    const counts = (some: typeof samples) => [0, 1, 2].map((k) => some.filter(({ label }) => label === k).length);
    // Sorted: few, many, one. The only sample of a class is never taken away.
    expect(counts(chosen)).toEqual([4, 8, 0]);
    expect(counts(rest)).toEqual([15, 32, 1]);
    expect(splitByClass(samples, 0.2, 1).chosen).toEqual(chosen);
    expect(splitByClass(samples, 0.2, 2).chosen).not.toEqual(chosen);
    expect(counts(fewShots(samples, 3, 1))).toEqual([3, 3, 1]);
    const tenth = fractionByClass(samples, 0.1, 1);
    expect(counts(tenth)).toEqual([2, 4, 1]);
    const half = fractionByClass(samples, 0.5, 1);
    expect(tenth.every((sample) => half.includes(sample))).toBe(true);
    expect(counts(fractionByClass(samples, 0.01, 1))).toEqual([1, 1, 1]);
  });
});
