import { describe, expect, it } from 'vitest';
import { syntheticTrainer } from '../../bench/support/synthetic-trainer.ts';
import type { EngineName } from '../../engine/capabilities.ts';
import { type Engine, fallbackUses, loadEngine, recordForward, tf } from '../../engine/index.ts';
import { ClipModel } from '../../models/clip/clip-model.ts';
import { normals, smallCaptions, smallConfig, smallWeights } from '../models/small-model.ts';
import { engineNames, hasTensorflow } from '../support/engines.ts';

const BATCH = 6;
/** For long runs. */
const TINIEST = {
  ...smallConfig,
  vision: { ...smallConfig.vision, layers: 1 },
  text: { ...smallConfig.text, layers: 1, vocabSize: 600 },
};
const others = engineNames.filter((name) => name !== 'cpu');

/** Losses of `steps` updates, and the weights after them. */
async function train(name: EngineName, steps: number) {
  const engine = await loadEngine({ engine: name, threads: 1 });
  const trainer = syntheticTrainer(engine, smallConfig, { globalBatch: BATCH });
  const losses = Array.from({ length: steps }, () => trainer.step());
  trainer.close();
  engine.close();
  return losses;
}

/** Embeddings of both towers and the gradients of all parameters under fixed gradients of the embeddings. */
async function gradients(name: EngineName) {
  const engine: Engine = await loadEngine({ engine: name, threads: 1 });
  const model = new ClipModel(smallConfig, { seed: 3, precision: 'fp32' });
  model.setWeights(smallWeights());
  const side = smallConfig.vision.imageSize;
  const pixels = tf.tensor4d(normals(BATCH * side * side * 3, 'p'), [BATCH, side, side, 3]);
  const dEmbedding = tf.tensor2d(normals(BATCH * smallConfig.embedDim, 'g'), [BATCH, smallConfig.embedDim]);
  const recording = recordForward(() => [
    model.encodeImage(pixels),
    model.encodeText(smallCaptions(BATCH, smallConfig.text.contextLength), BATCH),
  ]);
  const found = new Map<string, Float32Array>();
  recording.outputs.forEach((output, index) => {
    found.set(`embedding ${index}`, Float32Array.from(output.dataSync()));
  });
  const variables = model.parameters.map(({ variable }) => variable);
  recording.backward([dEmbedding, dEmbedding], variables, (index, gradient) => {
    found.set(model.parameters[index]!.name, Float32Array.from(gradient.dataSync()));
  });
  tf.dispose([pixels, dEmbedding]);
  model.dispose();
  engine.close();
  return found;
}

/** Largest difference, relative to the larger array's largest value where that exceeds 1. */
function distance(a: Float32Array, b: Float32Array): number {
  let worst = 0;
  let scale = 1;
  for (let i = 0; i < a.length; i++) {
    worst = Math.max(worst, Math.abs(a[i]! - b[i]!));
    scale = Math.max(scale, Math.abs(a[i]!));
  }
  return worst / scale;
}

describe('training on cpu', () => {
  it('lowers the loss of a batch seen again and again', async () => {
    const losses = await train('cpu', 8);
    expect(losses.at(-1)!).toBeLessThan(losses[0]! - 0.02);
    expect(losses.every(Number.isFinite)).toBe(true);
  }, 60_000);
});

describe.each(others)('training on %s', (name) => {
  it('has the embeddings and gradients of cpu', async () => {
    const [expected, found] = [await gradients('cpu'), await gradients(name)];
    expect([...found.keys()].sort()).toEqual([...expected.keys()].sort());
    for (const [key, values] of expected) expect(distance(values, found.get(key)!), key).toBeLessThan(1e-5);
  }, 60_000);

  it('follows the losses of cpu over several updates', async () => {
    const [expected, found] = [await train('cpu', 5), await train(name, 5)];
    expected.forEach((loss, step) => {
      expect(Math.abs(found[step]! - loss), `step ${step}`).toBeLessThan(1e-5 * (step + 1));
    });
  }, 60_000);

  it('gives the same bits when it is run again', async () => {
    expect(await train(name, 3)).toEqual(await train(name, 3));
  }, 60_000);
});

describe.each(engineNames.filter((name) => ['wasm', 'tensorflow'].includes(name)))('a long run on %s', (name) => {
  it('holds no more tensors after 50 updates than after 2', async () => {
    const engine = await loadEngine({ engine: name, threads: 1 });
    const trainer = syntheticTrainer(engine, TINIEST, { globalBatch: 2 });
    trainer.step();
    trainer.step();
    const before = engine.memory();
    const callsBefore = new Map(fallbackUses().map(({ kernel, calls }) => [kernel, calls]));
    for (let i = 0; i < 48; i++) trainer.step();
    expect(engine.memory()).toEqual(before);
    const fallen = fallbackUses().filter(({ kernel, calls }) => calls !== callsBefore.get(kernel));
    // The scatter of an embedding's gradient is the one kernel of a training step that WebAssembly does not have.
    expect(fallen.map(({ kernel }) => kernel)).toEqual(name === 'wasm' ? ['UnsortedSegmentSum'] : []);
    trainer.close();
  }, 120_000);
});

it.skipIf(!hasTensorflow)(
  'tensorflow keeps resident memory flat (skipped without `npm run tensorflow:build`)',
  async () => {
    const engine = await loadEngine({ engine: 'tensorflow', threads: 1 });
    const trainer = syntheticTrainer(engine, TINIEST, { globalBatch: 2 });
    for (let i = 0; i < 60; i++) trainer.step();
    const before = process.memoryUsage().rss;
    for (let i = 0; i < 140; i++) trainer.step();
    expect(process.memoryUsage().rss - before).toBeLessThan(30e6);
    trainer.close();
  },
  120_000,
);
