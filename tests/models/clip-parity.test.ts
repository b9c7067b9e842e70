import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadEngine, recordForward, tf } from '../../engine/index.ts';
import { ClipModel } from '../../models/clip/clip-model.ts';
import { elementCount, parameterShapes } from '../../models/clip/parameter-shapes.ts';
import { openClipConfig } from '../../models/formats/open-clip.ts';
import { type HostTensor, readSafetensors, writeSafetensors } from '../../models/formats/safetensors.ts';
import { shapedWeights } from '../../models/formats/weights.ts';
import { trainBpe } from '../../models/tokenizer/bpe-trainer.ts';
import { loadTokenizer } from '../../models/tokenizer/tokenizer.ts';
import { engineNames } from '../support/engines.ts';
import { pythonWithTorch } from '../support/python-torch.ts';
import { normals, smallCaptions, smallConfig, smallWeights } from './small-model.ts';

const BATCH = 9;
const script = new URL('reference/clip_reference.py', import.meta.url).pathname;

/** BHWC pixels in the channels-first order of PyTorch. */
function channelsFirst(pixels: Float32Array, side: number): Float32Array {
  const out = new Float32Array(pixels.length);
  for (let i = 0; i < pixels.length; i++) {
    const channel = i % 3;
    const place = Math.floor(i / 3);
    const image = Math.floor(place / (side * side));
    out[(image * 3 + channel) * side * side + (place % (side * side))] = pixels[i]!;
  }
  return out;
}

/** Largest absolute difference over the largest absolute value. */
function relativeError(actual: ArrayLike<number>, expected: Float32Array): number {
  let difference = 0;
  let scale = 1e-30;
  for (let i = 0; i < expected.length; i++) {
    difference = Math.max(difference, Math.abs(actual[i]! - expected[i]!));
    scale = Math.max(scale, Math.abs(expected[i]!));
  }
  return difference / scale;
}

describe.skipIf(!pythonWithTorch)('against float64 PyTorch (skipped without python3-torch)', () => {
  let dir: string;
  const side = smallConfig.vision.imageSize;
  const length = smallConfig.text.contextLength;
  const pixels = normals(BATCH * side * side * 3, 'pixels');
  const ids = smallCaptions(BATCH, length);
  const imageGradient = normals(BATCH * smallConfig.embedDim, 'image gradient');
  const textGradient = normals(BATCH * smallConfig.embedDim, 'text gradient');
  const weights = smallWeights();
  const references = new Map<boolean, Map<string, HostTensor>>();

  beforeAll(async () => {
    dir = await mkdtemp(path.join(tmpdir(), 'covey-parity-'));
    const file = (name: string) => path.join(dir, name);
    const embeddings = [BATCH, smallConfig.embedDim];
    await writeFile(file('weights'), writeSafetensors(shapedWeights(parameterShapes(smallConfig), weights)));
    const inputs = new Map<string, HostTensor>([
      ['pixels', { shape: [BATCH, 3, side, side], values: channelsFirst(pixels, side) }],
      ['ids', { shape: [BATCH, length], values: Float32Array.from(ids) }],
      ['image_gradient', { shape: embeddings, values: imageGradient }],
      ['text_gradient', { shape: embeddings, values: textGradient }],
    ]);
    await writeFile(file('inputs'), writeSafetensors(inputs));
    const tokenizer = await loadTokenizer(trainBpe([], { vocabSize: 514 }), length);
    const preprocess = { mean: [0, 0, 0], std: [1, 1, 1] } as const;
    for (const quickGelu of [false, true]) {
      const config = openClipConfig({ kind: 'clip', config: { ...smallConfig, quickGelu }, preprocess, tokenizer });
      await writeFile(file('config'), JSON.stringify(config));
      const inOut = [file('weights'), file('inputs'), file('config'), file('output')];
      await promisify(execFile)(pythonWithTorch!, [script, ...inOut], { timeout: 90_000 });
      references.set(quickGelu, readSafetensors(await readFile(file('output'))).tensors);
    }
  }, 120_000);
  afterAll(() => rm(dir, { recursive: true, force: true }));

  describe.each(engineNames)('on the engine %s', (engine) => {
    it.each([
      ['exact GELU', false],
      ['QuickGELU', true],
    ])(
      'gives the same embeddings and the same gradient of every parameter, with %s',
      async (_, quickGelu) => {
        await loadEngine({ engine, threads: 1 });
        const reference = references.get(quickGelu)!;
        const model = new ClipModel({ ...smallConfig, quickGelu }, { seed: 0, precision: 'fp32', init: 'zeros' });
        model.setWeights(weights);
        const before = tf.memory().numTensors;
        const x_BHWC = tf.tensor4d(pixels, [BATCH, side, side, 3]);
        const recording = recordForward(() => [model.encodeImage(x_BHWC), model.encodeText(ids, BATCH)]);
        const [image, text] = recording.outputs.map((output) => output.dataSync());
        expect(relativeError(image!, reference.get('image')!.values)).toBeLessThan(1e-5);
        expect(relativeError(text!, reference.get('text')!.values)).toBeLessThan(1e-5);

        const outputGradients = [imageGradient, textGradient].map((values) =>
          tf.tensor2d(values, [BATCH, smallConfig.embedDim]),
        );
        const seen = new Set<string>();
        const variables = model.parameters.map(({ variable }) => variable);
        recording.backward(outputGradients, variables, (index, gradient) => {
          const { name, shape } = model.parameters[index]!;
          seen.add(name);
          expect(gradient.size, name).toBe(elementCount(shape));
          expect(relativeError(gradient.dataSync(), reference.get(`grad.${name}`)!.values), name).toBeLessThan(1e-5);
        });
        // All but the scale, which the towers do not use.
        const expected = model.parameters.map(({ name }) => name).filter((name) => name !== 'logit_scale');
        expect([...seen].sort()).toEqual(expected.sort());
        tf.dispose([x_BHWC, ...outputGradients]);
        expect(tf.memory().numTensors).toBe(before);
        model.dispose();
      },
      60_000,
    );
  });
});
