import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Engine, loadEngine, tf } from '../../engine/index.ts';
import { ClipModel } from '../../models/clip/clip-model.ts';
import { loadTokenizer } from '../../models/tokenizer/tokenizer.ts';
import { pretrainedBackbone } from '../../transfer/backbone.ts';
import { TransferNetwork } from '../../transfer/network.ts';
import { zeroShotHead } from '../../transfer/zero-shot-head.ts';
import { randomPixels, SMALL_VISION } from './small-backbone.ts';

let engine: Engine;
beforeAll(async () => {
  engine = await loadEngine({ engine: 'auto', device: 'cpu', threads: 1 });
});
afterAll(() => engine.close());

const CONFIG = {
  embedDim: 12,
  quickGelu: false,
  vision: SMALL_VISION,
  text: { contextLength: 16, vocabSize: 49_408, width: 8, heads: 2, layers: 1, mlpRatio: 2 },
};

it('begins as the zero-shot classifier: its logits are s·cos of pictures and texts', async () => {
  const before = tf.memory().numTensors;
  const tokenizer = await loadTokenizer('clip', CONFIG.text.contextLength);
  const model = new ClipModel(CONFIG, { seed: 4, precision: 'fp32' });
  const weights = model.readWeights();
  const preprocess = { mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5] } as const;
  const backbone = pretrainedBackbone({ kind: 'clip', config: CONFIG, weights, preprocess, tokenizer }, 'a test');
  const names = ['cat', 'red house', 'tree'];
  const network = new TransferNetwork(backbone, { classes: 3, space: 'embedding', seed: 0, precision: 'fp32' });
  const words = { classNames: names, templates: ['a photo of a {}'] };
  network.setHead(await zeroShotHead({ config: CONFIG, weights, tokenizer }, words, engine));
  const { own, expected } = tf.tidy(() => {
    const pixels = randomPixels(5);
    const ids = Int32Array.from(names.flatMap((name) => [...tokenizer.encode(`a photo of a ${name}`)]));
    const cosines = tf.matMul(model.encodeImage(pixels), model.encodeText(ids, 3), false, true);
    const scale = Math.exp(weights.get('logit_scale')![0]!);
    return { own: network.logits(pixels).dataSync(), expected: tf.mul(cosines, scale).dataSync() } as never;
  }) as unknown as { own: Float32Array; expected: Float32Array };
  own.forEach((value, i) => {
    expect(value).toBeCloseTo(expected[i]!, 4);
  });
  network.dispose();
  model.dispose();
  expect(tf.memory().numTensors).toBe(before);
});
