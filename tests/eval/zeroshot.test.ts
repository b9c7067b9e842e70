import { afterAll, beforeAll, expect, it } from 'vitest';
import { RandomStream } from '../../common/random.ts';
import { type Engine, loadEngine, pixelsToTensor, tf } from '../../engine/index.ts';
import { evaluateZeroShot } from '../../worker/eval/zeroshot.ts';
import { smallJointModel } from '../transfer/joint-models.ts';

let engine: Engine;
beforeAll(async () => {
  engine = await loadEngine({ engine: 'auto', device: 'cpu', threads: 1 });
});
afterAll(() => engine.close());

const NAMES = ['red', 'green thing', 'blue', 'a $& one', 'the photo', 'drawing'];
const TEMPLATES = ['a {}', 'the {} of {}'];
const CENTRED = { mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5] } as const;

it('classifies pictures by the mean of their templates, in batches as one by one', async () => {
  const model = await smallJointModel(engine);
  const tensors = tf.memory().numTensors;
  const stream = new RandomStream(3, 'pixels');
  const side = model.imageSide;
  const pictures = Array.from({ length: 7 }, (_, n) => ({
    sampleId: `s${n}`,
    label: NAMES[(2 * n) % 5]!,
    pixels: Uint8Array.from({ length: side * side * 3 }, () => stream.integer(256)),
  }));
  const listed = async function* (images: typeof pictures) {
    yield* images;
  };
  const options = { classNames: NAMES, templates: TEMPLATES, ...CENTRED, batch: 3 };
  const result = await evaluateZeroShot(listed(pictures), options, model);
  const rows = (tensor: tf.Tensor) => Array.from(tensor.dataSync());
  const text = (name: string) => {
    const both = TEMPLATES.map((template) => {
      const ids = model.tokenizer.encode(template.split('{}').join(name));
      return tf.tidy(() => rows(model.model.encodeText(ids, 1)) as never) as number[];
    });
    const sum = both[0]!.map((value, e) => value + both[1]![e]!);
    return sum.map((value) => value / Math.hypot(...sum));
  };
  const classes = NAMES.map(text);
  const places = pictures.map(({ pixels, label }, n) => {
    const image = tf.tidy(() => {
      const x = pixelsToTensor(pixels, [1, side, side, 3], { ...CENTRED, precision: 'fp32' });
      return rows(model.model.encodeImage(x)) as never;
    }) as number[];
    const scores = classes.map((one) => one.reduce((sum, value, e) => sum + value * image[e]!, 0));
    const order = [...NAMES.keys()].sort((a, b) => scores[b]! - scores[a]!);
    expect(result.predictions[n]!.best.map(({ className }) => className)).toEqual(
      order.slice(0, 5).map((k) => NAMES[k]!),
    );
    expect(result.predictions[n]!.best[0]!.similarity).toBeCloseTo(scores[order[0]!]!, 5);
    return order.indexOf(NAMES.indexOf(label));
  });
  expect(result.predictions.map(({ rank }) => rank)).toEqual(places);
  expect(result).toMatchObject({
    samples: 7,
    classes: 6,
    top1: places.filter((place) => place === 0).length / 7,
    top5: places.filter((place) => place < 5).length / 7,
  });
  expect(result.meanRank).toBeCloseTo(places.reduce((sum, place) => sum + place + 1, 0) / 7, 12);
  expect(tf.memory().numTensors).toBe(tensors);
  const strange = listed([{ ...pictures[0]!, label: 'pink' }]);
  await expect(evaluateZeroShot(strange, options, model)).rejects.toThrow(/s0: its label 'pink' is not among the 6/);
  await expect(evaluateZeroShot(listed([]), options, model)).rejects.toThrow(/there are no pictures/);
  model.dispose();
});
