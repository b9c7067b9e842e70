import { afterAll, beforeAll, expect, it } from 'vitest';
import { RandomStream } from '../../../common/random.ts';
import { type Engine, loadEngine, tf } from '../../../engine/index.ts';
import { studyPrompts } from '../../../transfer/prompts/prompt-study.ts';
import { ClassifierBuilder } from '../../../transfer/zero-shot/build-classifier.ts';
import type { JointModel } from '../../../transfer/zero-shot/joint-model.ts';
import { predictClasses } from '../../../worker/eval/classify.ts';
import { smallJointModel } from '../joint-models.ts';

const E = 12;
const N = 60;
const CLASSES = ['red', 'green', 'blue', 'a thing'].map((name) => ({ name, descriptions: [name, `${name} one`] }));
const TEMPLATES = ['{}', 'a {}', 'the {}', 'a photo of a {}', 'drawing of {}'];
const OPTIONS = {
  classes: CLASSES,
  templates: TEMPLATES,
  descriptions: 'average' as const,
  validation: 0.5,
  ensembleMax: 4,
  seed: 2,
};

let engine: Engine;
let model: JointModel;
beforeAll(async () => {
  engine = await loadEngine({ engine: 'auto', device: 'cpu', threads: 1 });
  model = await smallJointModel(engine);
});
afterAll(() => {
  model.dispose();
  engine.close();
});

/** Pictures near the classes' own vectors, far enough from them that templates disagree. */
async function pictures() {
  const builder = new ClassifierBuilder({ classes: CLASSES, descriptions: 'average' }, model);
  const { vectors_VE } = await builder.classifier(TEMPLATES);
  const labels_N = Int32Array.from({ length: N }, (_, n) => n % CLASSES.length);
  const stream = new RandomStream(5, 'pictures');
  const values_NE = new Float32Array(N * E);
  labels_N.forEach((label, n) => {
    const row = Array.from({ length: E }, (_, e) => vectors_VE[label * E + e]! + stream.normal(0, 0.12));
    values_NE.set(
      row.map((value) => value / Math.hypot(...row)),
      n * E,
    );
  });
  return { embeddings: { values_NE, columns: E }, labels_N };
}

it('never looks at the pictures that judge, and reports what plain classifiers give', async () => {
  const before = tf.memory().numTensors;
  const given = await pictures();
  const study = await studyPrompts(OPTIONS, { model, pictures: given });
  expect(study.split.search).toHaveLength(N / 2);
  expect(tf.memory().numTensors).toBe(before);

  // Each template and the chosen ensemble once more, on all pictures at once.
  const builder = new ClassifierBuilder({ classes: CLASSES, descriptions: 'average' }, model);
  const share = (predicted: Int32Array, rows: Int32Array) =>
    rows.filter((row) => predicted[row] === given.labels_N[row]).length / rows.length;
  for (const { template, accuracy, searchAccuracy, judgedAccuracy } of study.templates) {
    const predicted = await predictClasses(given.embeddings, await builder.classifier([template]), { engine });
    const rows = Int32Array.from(given.labels_N.keys());
    expect([accuracy, searchAccuracy, judgedAccuracy]).toEqual(
      [rows, study.split.search, study.split.judge].map((some) => share(predicted, some)),
    );
  }
  const predicted = await predictClasses(given.embeddings, await builder.classifier(study.ensemble), { engine });
  expect(study.ways.find(({ name }) => name === 'searched ensemble')).toMatchObject({
    searchAccuracy: share(predicted, study.split.search),
    judgedAccuracy: share(predicted, study.split.judge),
  });
  // Otherwise the case would say nothing.
  expect(new Set(study.templates.map(({ searchAccuracy }) => searchAccuracy)).size).toBeGreaterThan(2);

  const others = Float32Array.from(given.embeddings.values_NE);
  for (const row of study.split.judge) for (let e = 0; e < E; e++) others[row * E + e]! *= -1;
  const changed = await studyPrompts(OPTIONS, {
    model,
    pictures: { ...given, embeddings: { values_NE: others, columns: E } },
  });
  const chosen = ({ search, ensemble, ways }: typeof study) => ({
    ensemble,
    size: search.size,
    steps: search.steps.map(({ template, searchAccuracy }) => ({ template, searchAccuracy })),
    ways: ways.map(({ name, templates, searchAccuracy }) => ({ name, templates, searchAccuracy })),
  });
  expect(chosen(changed)).toEqual(chosen(study));
  expect(changed.ways.map((way) => way.judgedAccuracy)).not.toEqual(study.ways.map((way) => way.judgedAccuracy));
});
