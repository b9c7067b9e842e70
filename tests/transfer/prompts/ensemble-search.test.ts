import { describe, expect, it } from 'vitest';
import { type EnsembleScorer, searchEnsemble } from '../../../transfer/prompts/ensemble-search.ts';
import { SensitivityCounter } from '../../../transfer/prompts/sensitivity.ts';
import { splitPictures } from '../../../transfer/prompts/split-pictures.ts';
import { TemplateSum } from '../../../worker/eval/text-classifier.ts';

/**
 * Pictures lie on the axes of their three classes, a little towards a fourth direction. Template 0 knows class 0 alone, and takes everything for it;
 * 1 knows classes 0 and 1, and takes the pictures of 2 for 1; 2 knows class 2 and mixes the others up; 3 is all wrong. 1 and 2 together are right
 * about everything, and no other ensemble is.
 */
const PICTURES = [
  [1, 0.1, 0.1],
  [0.9, 0.2, 0.1],
  [0.1, 1, 0.1],
  [0.2, 0.9, 0.1],
  [0.1, 0.2, 1],
  [0.1, 0.3, 0.9],
];
const LABELS = [0, 0, 1, 1, 2, 2];
const TEMPLATES = [
  [
    [0.9, 0.9, 0.9],
    [-1, 0.1, -1],
    [-1, -1, 0.1],
  ],
  [
    [1, 0, 0],
    [0, 1, 0.9],
    [-0.5, 0, 0.2],
  ],
  [
    [0.1, 0.2, -0.5],
    [0.2, 0.1, -0.5],
    [0, 0, 1],
  ],
  [
    [-1, 0.9, 0.9],
    [0.9, -1, 0.9],
    [0.9, 0.9, -1],
  ],
].map((classes) => Float32Array.from(classes.flatMap((row) => row.map((value) => value / Math.hypot(...row)))));

/** Accuracy of an ensemble in plain loops. */
function accuracyOf(templates: readonly number[]): number {
  const right = PICTURES.filter((picture, n) => {
    const scores = [0, 1, 2].map((k) => {
      const sum = [0, 1, 2].map((d) => templates.reduce((total, t) => total + TEMPLATES[t]![3 * k + d]!, 0));
      return sum.reduce((dot, value, d) => dot + value * picture[d]!, 0) / Math.hypot(...sum);
    });
    return scores.indexOf(Math.max(...scores)) === LABELS[n];
  });
  return right.length / PICTURES.length;
}

/** The scorer that a study uses, with plain products: sums of templates, unit length, highest cosine. */
function scorer(taken: number[] = []): EnsembleScorer {
  const sum = new TemplateSum(3, 3);
  const accuracy = (classifier: Float32Array) => {
    const right = PICTURES.filter((picture, n) => {
      const scores = [0, 1, 2].map((k) => picture.reduce((dot, value, d) => dot + value * classifier[3 * k + d]!, 0));
      return scores.indexOf(Math.max(...scores)) === LABELS[n];
    });
    return right.length / PICTURES.length;
  };
  return {
    accuracyWith: async (template) => accuracy(sum.classifier(TEMPLATES[template]!)),
    take: async (template) => {
      taken.push(template);
      sum.add(TEMPLATES[template]!);
      return accuracy(sum.classifier());
    },
  };
}

describe('the search for an ensemble', () => {
  it('finds the one that a look at all subsets finds best', async () => {
    const subsets = Array.from({ length: 15 }, (_, i) => [0, 1, 2, 3].filter((t) => ((i + 1) >> t) & 1));
    const perfect = subsets.filter((subset) => accuracyOf(subset) === 1);
    expect(perfect).toEqual([[1, 2]]);
    const taken: number[] = [];
    const found = await searchEnsemble({ templates: 4, sizeMax: 4 }, scorer(taken));
    expect(found.size).toBe(2);
    expect(taken.slice(0, 2).sort()).toEqual([1, 2]);
    expect(taken).toHaveLength(4);
    found.steps.forEach(({ searchAccuracy, judgedAccuracy }, i) => {
      expect(searchAccuracy).toBe(accuracyOf(taken.slice(0, i + 1)));
      expect(judgedAccuracy).toBe(searchAccuracy);
    });
  });

  it('goes on where no template helps, takes the first of equals, and chooses the shortest of equal ensembles', async () => {
    const accuracies: Record<string, number> = { '0': 0.5, '1': 0.5, '2': 0.4, '0,1': 0.4, '0,2': 0.4, '0,1,2': 0.5 };
    const taken: number[] = [];
    const key = (templates: readonly number[]) => [...templates].sort().join();
    const asked: string[] = [];
    const found = await searchEnsemble(
      { templates: 3, sizeMax: 9, onTrial: (done, total) => asked.push(`${done}/${total}`) },
      {
        accuracyWith: async (template) => accuracies[key([...taken, template])]!,
        take: async (template) => {
          taken.push(template);
          return 0.1;
        },
      },
    );
    expect(taken).toEqual([0, 1, 2]);
    expect(found.size).toBe(1);
    expect(found.steps.map(({ searchAccuracy }) => searchAccuracy)).toEqual([0.5, 0.4, 0.5]);
    expect(asked.at(-1)).toBe('6/6');
  });
});

describe('the split of the pictures', () => {
  it('gives every class its share as far as pictures are whole, and both sides of classes with one picture', () => {
    const labels = Int32Array.from([
      ...new Array<number>(20).fill(0),
      ...new Array<number>(5).fill(1),
      ...Array.from({ length: 40 }, (_, i) => 2 + i),
    ]);
    const { search, judge } = splitPictures(labels, 0.5, 3);
    expect([...search, ...judge].sort((a, b) => a - b)).toEqual([...labels.keys()]);
    const count = (rows: Int32Array, isOf: (label: number) => boolean) =>
      rows.filter((row) => isOf(labels[row]!)).length;
    expect(count(search, (label) => label === 0)).toBe(10);
    expect([2, 3]).toContain(count(search, (label) => label === 1));
    expect(Math.abs(count(search, (label) => label > 1) - 20)).toBeLessThanOrEqual(1);
    expect(splitPictures(labels, 0.5, 3)).toEqual({ search, judge });
    expect(splitPictures(labels, 0.5, 4).search).not.toEqual(search);
    expect(splitPictures(labels, 0.2, 3).search.length).toBe(13);
  });

  it('refuses to leave a side without pictures', () => {
    expect(() => splitPictures(Int32Array.of(0), 0.5, 0)).toThrow(
      /both need some: give more pictures or another --valid/,
    );
    expect(() => splitPictures(Int32Array.of(0, 1, 1), 0, 0)).toThrow(/0 are left to choose by/);
    expect(() => splitPictures(Int32Array.of(0, 1, 1), 1, 0)).toThrow(/0 to judge by/);
  });
});

describe('sensitivity', () => {
  it('says which classes change and which pictures flip', () => {
    const labels_N = Int32Array.of(0, 0, 1, 1, 2);
    const reference_N = Int32Array.of(0, 1, 1, 1, 2);
    const counter = new SensitivityCounter({ labels_N, classNames: ['a', 'b', 'c', 'nobody'], reference_N });
    expect(counter.add('t0', Int32Array.of(0, 0, 1, 0, 2))).toBe(2 / 5);
    expect(counter.add('t1', Int32Array.of(0, 1, 1, 1, 2))).toBe(0);
    expect(counter.add('t2', Int32Array.of(1, 1, 1, 2, 2))).toBe(2 / 5);
    const { accuracy, flips, classes } = counter.result();
    expect(accuracy.least).toBe(2 / 5);
    expect(accuracy.most).toBe(4 / 5);
    expect(accuracy.mean).toBeCloseTo(2 / 3, 12);
    expect(accuracy.deviation).toBeCloseTo(Math.sqrt((2 * (2 / 15) ** 2 + (4 / 15) ** 2) / 3), 12);
    expect(flips.pictures).toBe(3 / 5);
    expect(flips.meanDisagreement).toBeCloseTo(4 / 15, 12);
    expect(flips.most).toEqual([
      { row: 3, templates: 2 },
      { row: 0, templates: 1 },
      { row: 1, templates: 1 },
    ]);
    expect(classes.map(({ name }) => name)).toEqual(['a', 'b', 'c']);
    expect(classes[0]).toMatchObject({ pictures: 2, least: 0, most: 1, mean: 0.5, worst: 't2', best: 't0' });
    expect(classes[2]).toMatchObject({ pictures: 1, least: 1, most: 1 });
  });
});
