import { readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RandomStream } from '../../../common/random.ts';
import { type Engine, loadEngine, tf } from '../../../engine/index.ts';
import { ClassifierBuilder } from '../../../transfer/zero-shot/build-classifier.ts';
import { captionRetrieval } from '../../../transfer/zero-shot/caption-retrieval.ts';
import type { JointModel } from '../../../transfer/zero-shot/joint-model.ts';
import { zeroShotScores } from '../../../transfer/zero-shot/zero-shot-scores.ts';
import { predictClasses, rankClasses } from '../../../worker/eval/classify.ts';
import { temporaryFolder } from '../../support/datasets.ts';
import { smallJointModel } from '../joint-models.ts';

const E = 12;
const CLASSES = [
  { name: 'red', descriptions: ['red, a colour', 'the red one', 'a red thing'] },
  { name: '$& blue', descriptions: ['$& blue'] },
  { name: 'green', descriptions: ['green thing', 'green'] },
];
const TEMPLATES = ['a photo of a {}', '{}', 'the {} of {}'];

let engine: Engine;
let model: JointModel;
let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let tensors: number;
beforeAll(async () => {
  engine = await loadEngine({ engine: 'auto', device: 'cpu', threads: 1 });
  tensors = tf.memory().numTensors;
  model = await smallJointModel(engine);
  folder = await temporaryFolder();
});
afterAll(async () => {
  model.dispose();
  expect(tf.memory().numTensors).toBe(tensors);
  engine.close();
  await folder.remove();
});

/** The unit-length embedding of one text, alone, in plain numbers. */
function embedding(text: string): number[] {
  const ids = model.tokenizer.encode(text);
  const values = tf.tidy(() => Array.from(model.model.encodeText(ids, 1).dataSync()) as never) as number[];
  const norm = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
  return values.map((value) => value / norm);
}

/** Mean of unit-length embeddings, brought to unit length again. */
function meanOf(texts: readonly string[]): number[] {
  const rows = texts.map(embedding);
  const mean = Array.from({ length: E }, (_, e) => rows.reduce((sum, row) => sum + row[e]!, 0) / rows.length);
  const norm = Math.sqrt(mean.reduce((sum, value) => sum + value * value, 0));
  return mean.map((value) => value / norm);
}

const filled = (template: string, phrase: string) => template.split('{}').join(phrase);

function unitRows(count: number, name: string): Float32Array {
  const stream = new RandomStream(7, name);
  const rows = Array.from({ length: count }, () => Array.from({ length: E }, () => stream.normal()));
  return Float32Array.from(rows.flatMap((row) => row.map((value) => value / Math.hypot(...row))));
}

const close = (actual: Float32Array, expected: readonly number[]) => {
  expect(actual).toHaveLength(expected.length);
  actual.forEach((value, i) => {
    expect(Math.abs(value - expected[i]!)).toBeLessThan(2e-6);
  });
};

describe('a classifier of texts', () => {
  it('is the mean over all texts of a class of unit-length embeddings, brought to unit length', async () => {
    const builder = new ClassifierBuilder({ classes: CLASSES, descriptions: 'average' }, model);
    const { vectors_VE } = await builder.classifier(TEMPLATES);
    const expected = CLASSES.flatMap(({ descriptions }) => {
      return meanOf(TEMPLATES.flatMap((template) => descriptions.map((phrase) => filled(template, phrase))));
    });
    close(vectors_VE, expected);
  });

  it('has a vector per description where the nearest counts, and one of the names where they alone count', async () => {
    const nearest = new ClassifierBuilder({ classes: CLASSES, descriptions: 'nearest' }, model);
    const built = await nearest.classifier(TEMPLATES);
    expect(built.classOf_V).toEqual(Int32Array.of(0, 0, 0, 1, 2, 2));
    const phrases = CLASSES.flatMap(({ descriptions }) => descriptions);
    close(
      built.vectors_VE,
      phrases.flatMap((phrase) => meanOf(TEMPLATES.map((template) => filled(template, phrase)))),
    );
    const names = new ClassifierBuilder({ classes: CLASSES, descriptions: 'name' }, model);
    close(
      (await names.classifier(['{}'])).vectors_VE,
      CLASSES.flatMap(({ name }) => meanOf([name])),
    );
  });

  it('does not depend on the order of the templates, nor on where the texts’ embeddings come from', async () => {
    const options = {
      classes: CLASSES,
      descriptions: 'average' as const,
      textsFolder: path.join(folder.path, 'texts'),
    };
    const first = await new ClassifierBuilder(options, model).classifier(TEMPLATES);
    const files = await readdir(options.textsFolder);
    expect(files).toHaveLength(3);
    const again = await new ClassifierBuilder(options, model).classifier([...TEMPLATES].reverse());
    expect(again.vectors_VE).toEqual(first.vectors_VE);
    expect(await readdir(options.textsFolder)).toEqual(files);
    await writeFile(path.join(options.textsFolder, files[0]!), 'damaged');
    const mended = await new ClassifierBuilder(options, model).classifier(TEMPLATES);
    expect(mended.vectors_VE).toEqual(first.vectors_VE);
    expect(await readFile(path.join(options.textsFolder, files[0]!), 'latin1')).not.toBe('damaged');
  });

  it('knows how many of its texts the model cannot read to their end', () => {
    const { texts } = new ClassifierBuilder({ classes: CLASSES, descriptions: 'name' }, model);
    const { tokenizer } = model;
    for (const template of [
      '{}',
      'a photo of a {}',
      'a photo of a photo of a {} and of a {}',
      `${'x '.repeat(12)}{}`,
    ]) {
      const longer = CLASSES.filter(({ name }) => tokenizer.lengthOf(filled(template, name)) > tokenizer.contextLength);
      expect(texts.cutTexts(template)).toBe(longer.length);
    }
    expect(texts.cutTexts(`${'x '.repeat(12)}{}`)).toBe(3);
  });

  it('stops at an interrupt', async () => {
    const builder = new ClassifierBuilder({ classes: CLASSES, descriptions: 'name' }, model);
    await expect(builder.classifier(['{}'], { signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: 'CANCELLED',
    });
  });
});

describe('classifying', () => {
  const N = 41;
  const K = 9;
  const values_NE = unitRows(N, 'pictures');
  // Two classes alike: the tie goes to the first.
  const vectors_VE = unitRows(K, 'classes');
  vectors_VE.copyWithin(4 * E, 2 * E, 3 * E);
  const labels_N = Int32Array.from({ length: N }, (_, n) => n % K);
  const dot = (n: number, v: number, vectors = vectors_VE) => {
    let sum = 0;
    for (let e = 0; e < E; e++) sum += values_NE[n * E + e]! * vectors[v * E + e]!;
    return sum;
  };

  it('ranks classes by cosine as a plain sort does', async () => {
    const classifier = { classes: K, vectors_VE };
    const embeddings = { values_NE, columns: E };
    const ranked = await rankClasses(embeddings, labels_N, classifier, { engine });
    const predicted = await predictClasses(embeddings, classifier, { engine });
    for (let n = 0; n < N; n++) {
      const order = Array.from({ length: K }, (_, k) => k).sort((a, b) => dot(n, b) - dot(n, a) || a - b);
      expect([...ranked.best_NB.subarray(5 * n, 5 * n + 5)]).toEqual(order.slice(0, 5));
      expect(ranked.rank_N[n]).toBe(order.indexOf(labels_N[n]!));
      expect(ranked.similarity_NB[5 * n]).toBeCloseTo(dot(n, order[0]!), 5);
      expect(predicted[n]).toBe(order[0]);
    }
    expect([...predicted]).not.toContain(4);
    // In blocks of two pictures, and of one where not even its own similarities fit.
    for (const tileFloats of [20, 1]) {
      const inBlocks = await rankClasses(embeddings, labels_N, classifier, { engine, tileFloats });
      expect([inBlocks.best_NB, inBlocks.rank_N]).toEqual([ranked.best_NB, ranked.rank_N]);
      expect(await predictClasses(embeddings, classifier, { engine, tileFloats })).toEqual(predicted);
    }
  });

  it('takes the nearest of a class’s several vectors', async () => {
    const classOf_V = Int32Array.of(0, 0, 0, 1, 1, 2, 3, 3, 3);
    const classifier = { classes: 4, vectors_VE, classOf_V };
    const predicted = await predictClasses({ values_NE, columns: E }, classifier, { engine });
    for (let n = 0; n < N; n++) {
      const scores = [0, 1, 2, 3].map((k) =>
        Math.max(...Array.from(classOf_V.keys(), (v) => (classOf_V[v] === k ? dot(n, v) : -2))),
      );
      expect(predicted[n]).toBe(scores.indexOf(Math.max(...scores)));
    }
  });

  it('counts top-1, top-5, every class and every confusion', async () => {
    const names = Array.from({ length: K + 1 }, (_, k) => `class ${k}`);
    const withEmpty = Float32Array.from([...vectors_VE, ...unitRows(1, 'nobody')]);
    const classifier = { classes: K + 1, vectors_VE: withEmpty };
    const ranked = await rankClasses({ values_NE, columns: E }, labels_N, classifier, { engine });
    const scores = zeroShotScores(ranked, labels_N, names);
    const places = Array.from(labels_N, (label, n) => {
      const own = dot(n, label, withEmpty);
      return names.filter((_, k) => dot(n, k, withEmpty) > own || (dot(n, k, withEmpty) === own && k < label)).length;
    });
    const share = (some: readonly number[], within: number) => some.filter((one) => one < within).length / some.length;
    expect(scores).toMatchObject({ samples: N, classes: K + 1, top1: share(places, 1), top5: share(places, 5) });
    const ofClass = (k: number) => places.filter((_, n) => labels_N[n] === k);
    scores.perClass.slice(0, K).forEach(({ pictures, top1, top5 }, k) => {
      expect([pictures, top1, top5]).toEqual([ofClass(k).length, share(ofClass(k), 1), share(ofClass(k), 5)]);
    });
    expect(scores.perClass[K]).toMatchObject({ pictures: 0, top1: null, top5: null });
    const recalls = Array.from({ length: K }, (_, k) => share(ofClass(k), 1));
    expect(scores.classAccuracy).toBeCloseTo(recalls.reduce((a, b) => a + b, 0) / K, 12);
    expect(scores.meanRank).toBeCloseTo(places.reduce((a, b) => a + b + 1, 0) / N, 12);
    const wrong = places.filter((place) => place > 0).length;
    expect(scores.confusions.reduce((sum, { count }) => sum + count, 0)).toBe(wrong);
    expect(scores.perClass.reduce((sum, { takenWrongly }) => sum + takenWrongly, 0)).toBe(wrong);
    scores.confusions.forEach(({ truth, predicted, count, examples }, i) => {
      expect(count).toBeLessThanOrEqual(scores.confusions[i - 1]?.count ?? N);
      for (const row of examples) {
        expect([labels_N[row], ranked.best_NB[5 * row]]).toEqual([truth, predicted]);
      }
    });
  });

  it('retrieves captions and pictures, of a caption of several pictures the nearest', async () => {
    const texts = ['a red thing', 'blue', 'green thing', 'the photo', 'a drawing of a one'];
    const captions = Array.from({ length: N }, (_, n) => (n % 7 === 6 ? [] : [texts[n % 5]!]));
    const found = (await captionRetrieval({ values_NE, columns: E }, captions, textModules()))!;
    const rows = Array.from(captions.keys()).filter((n) => captions[n]!.length > 0);
    const embedded = Float32Array.from(texts.flatMap(embedding));
    const toText = rows.map((n) => texts.filter((_, t) => dot(n, t, embedded) > dot(n, n % 5, embedded)).length);
    const toImage = texts.map((text, t) => {
      const own = Math.max(...rows.filter((n) => captions[n]![0] === text).map((n) => dot(n, t, embedded)));
      return rows.filter((n) => dot(n, t, embedded) > own).length;
    });
    const recall = (places: readonly number[], k: number) => places.filter((one) => one < k).length / places.length;
    expect(found).toMatchObject({ pictures: rows.length, captions: 5 });
    for (const k of [1, 5, 10]) {
      expect(found.metrics[`image_to_text_R@${k}`]).toBe(recall(toText, k));
      expect(found.metrics[`text_to_image_R@${k}`]).toBe(recall(toImage, k));
    }
    expect(
      await captionRetrieval(
        { values_NE, columns: E },
        captions.map(() => ['all the same']),
        textModules(),
      ),
    ).toBeUndefined();
  });

  it('counts a picture as right with any of its captions, and asks with each of them', async () => {
    const words = ['red', 'blue', 'green', 'thing', 'photo', 'drawing', 'one', 'colour'];
    const said = words.flatMap((a) => words.map((b) => `${a} of ${b}`));
    // None to four captions, no two alike; the seventh picture says one of its own twice.
    const captions = Array.from({ length: N }, (_, n) => said.slice(4 * n, 4 * n + (n % 5)).filter(Boolean));
    captions[7]!.push(captions[7]![0]!);
    const found = (await captionRetrieval({ values_NE, columns: E }, captions, textModules()))!;
    const rows = Array.from(captions.keys()).filter((n) => captions[n]!.length > 0);
    const texts = [...new Set(captions.flat())];
    const embedded = Float32Array.from(texts.flatMap(embedding));
    const nearest = (candidates: readonly number[], score: (one: number) => number, k: number) =>
      candidates.toSorted((a, b) => score(b) - score(a)).slice(0, k);
    const share = (hits: readonly boolean[]) => hits.filter(Boolean).length / hits.length;
    expect(found).toMatchObject({ pictures: rows.length, captions: texts.length });
    for (const k of [1, 5, 10]) {
      const toText = rows.map((n) => {
        const top = nearest([...texts.keys()], (t) => dot(n, t, embedded), k);
        return top.some((t) => captions[n]!.includes(texts[t]!));
      });
      const toImage = texts.map((text, t) =>
        nearest(rows, (n) => dot(n, t, embedded), k).some((n) => captions[n]!.includes(text)),
      );
      expect(found.metrics[`image_to_text_R@${k}`]).toBe(share(toText));
      expect(found.metrics[`text_to_image_R@${k}`]).toBe(share(toImage));
    }
    // Taken by its first caption alone a picture has fewer chances.
    const first = (await captionRetrieval(
      { values_NE, columns: E },
      captions.map((own) => own.slice(0, 1)),
      textModules(),
    ))!;
    expect(first).toMatchObject({ pictures: rows.length, captions: rows.length });
    expect(first.metrics).not.toEqual(found.metrics);
  });
});

const textModules = () => ({ engine, model: model.model, tokenizer: model.tokenizer });
