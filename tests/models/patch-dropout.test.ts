import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ModelConfig, runConfigSchema } from '../../common/config/run-config.ts';
import { RandomStream } from '../../common/random.ts';
import { type Engine, loadEngine, type Tensor2D, type Tensor3D, type Tensor4D, tf } from '../../engine/index.ts';
import { ClipModel } from '../../models/clip/clip-model.ts';
import { backboneFlops } from '../../models/clip/step-flops.ts';
import { resolveModelConfig } from '../../models/model-config.ts';
import type { TowerContext } from '../../models/vision/backbone.ts';
import { batchNormLayer } from '../../models/vision/batch-norm-layer.ts';
import { keptPatchCount, keptPatches } from '../../models/vision/patch-dropout.ts';
import { classTokens, encodeTokens, finalNorm, patchTokens } from '../../models/vision/vit.ts';
import { vitLayout } from '../../models/vision/vit-layout.ts';
import { checkTowerFor } from '../../worker/objectives/check-tower.ts';
import { autoEngines } from '../support/engines.ts';

const SIDE = 32;
const VISION = { imageSize: SIDE, patchSize: 8, width: 32, layers: 2, headWidth: 16, mlpRatio: 2 };
const PATCHES = 16;
const MODEL: ModelConfig = {
  embedDim: 16,
  quickGelu: false,
  vision: VISION,
  text: { contextLength: 8, vocabSize: 40, width: 32, heads: 2, layers: 1, mlpRatio: 2 },
};
const SEEDS = Uint32Array.of(7, 8, 4_000_000_000);

describe('the patches that are kept', () => {
  it('are as many as open_clip keeps: rounded down, at least one', () => {
    expect([0, 0.5, 0.75, 0.9, 0.99].map((rate) => keptPatchCount(49, rate))).toEqual([49, 24, 12, 4, 1]);
  });

  it('are distinct, ascending, the same each time, and others for other seeds and views', () => {
    const kept = keptPatches({ rate: 0.5, seeds: SEEDS }, 6, PATCHES);
    const ofPicture = Array.from({ length: 6 }, (_, picture) => [...kept.subarray(8 * picture, 8 * picture + 8)]);
    for (const own of ofPicture) {
      expect(own).toEqual([...new Set(own)].sort((a, b) => a - b));
      expect(own.every((patch) => patch >= 0 && patch < PATCHES)).toBe(true);
    }
    expect(new Set(ofPicture.map(String)).size).toBe(6);
    expect(keptPatches({ rate: 0.5, seeds: SEEDS }, 6, PATCHES)).toEqual(kept);
    // Views that are encoded one at a time keep what they keep together.
    expect(keptPatches({ rate: 0.5, seeds: SEEDS, firstView: 1 }, 3, PATCHES)).toEqual(kept.slice(24));
    // A part of the samples, as in a micro-batch, keeps what it kept among all.
    expect(keptPatches({ rate: 0.5, seeds: SEEDS.subarray(1, 2) }, 2, PATCHES)).toEqual(
      Int32Array.from([...ofPicture[1]!, ...ofPicture[4]!]),
    );
  });

  it('are any with the same chance', () => {
    const seeds = new Uint32Array(4000).map((_, i) => i);
    const counts = new Float64Array(PATCHES);
    for (const patch of keptPatches({ rate: 0.75, seeds }, 4000, PATCHES)) counts[patch]!++;
    // 1000 each, standard deviation 27.
    for (const count of counts) expect(Math.abs(count - 1000)).toBeLessThan(5 * 27);
  });
});

describe('train.patchDropout', () => {
  it('is refused at 1, where a tower would see nothing', () => {
    const parse = (patchDropout: number) =>
      runConfigSchema.safeParse({
        run: 'r',
        store: 'file:///unused',
        model: 'tiny',
        data: { manifest: 'file:///unused' },
        train: { steps: 1, globalBatch: 8, lanes: 2, patchDropout },
      });
    expect(parse(1).error?.issues[0]?.message).toBe('must be below 1: a tower that sees no patch learns nothing');
    expect(parse(-0.1).success).toBe(false);
    expect(parse(0.5).success).toBe(true);
  });

  it('is refused for a tower without patches', () => {
    const { train, loss } = runConfigSchema.parse({
      run: 'r',
      store: 'file:///unused',
      model: 'tiny',
      data: { manifest: 'file:///unused' },
      train: { steps: 1, globalBatch: 8, lanes: 2, patchDropout: 0.5 },
    });
    const check = (model: ModelConfig) => () => checkTowerFor({ run: 'r', objective: 'clip', loss, train }, model);
    expect(check(MODEL)).not.toThrow();
    expect(check(resolveModelConfig('RN50'))).toThrow(
      /train.patchDropout is for ViTs, model.vision.kind is modified-resnet/,
    );
  });

  it('counts as less work', () => {
    const [all, half] = [0, 0.5].map((rate) => backboneFlops(VISION, 3, rate));
    expect(half!.forward / all!.forward).toBeGreaterThan(0.4);
    expect(half!.forward / all!.forward).toBeLessThan(0.6);
  });
});

describe.each(autoEngines)('a ViT under patch dropout on engine %s', (name) => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await loadEngine({ engine: name, threads: 1 });
  });
  afterAll(() => engine.close());

  const random = new RandomStream('patch-dropout');
  const noise = new Float32Array(SEEDS.length * SIDE * SIDE * 3).map(() => random.normal());
  const pixels = () => tf.tensor4d(noise, [SEEDS.length, SIDE, SIDE, 3]);

  /** The tower over tokens that were picked by hand from those of all patches. */
  function reference(model: ClipModel, x_BHWC: Tensor4D, rate: number): Tensor2D {
    const layout = vitLayout(VISION);
    const { parameter } = model;
    const tower: TowerContext = {
      parameter,
      precision: 'fp32',
      quickGelu: false,
      recomputedBlocks: 0,
      normalise: batchNormLayer(parameter),
    };
    const kept = keptPatches({ rate, seeds: SEEDS }, SEEDS.length, PATCHES);
    const count = kept.length / SEEDS.length;
    const patches_BND = patchTokens(x_BHWC, layout, tower);
    const rows = Array.from(kept, (patch, i) =>
      tf.slice(patches_BND, [Math.floor(i / count), patch, 0], [1, 1, VISION.width]),
    );
    const pictures = [...SEEDS.keys()].map((i) => tf.concat(rows.slice(i * count, (i + 1) * count), 1));
    const tokens_BTD = tf.concat([classTokens(SEEDS.length, layout, tower), tf.concat(pictures, 0) as Tensor3D], 1);
    const x_BTD = encodeTokens(tokens_BTD as Tensor3D, layout, tower);
    return finalNorm(tf.slice(x_BTD, [0, 0, 0], [SEEDS.length, 1, VISION.width]), layout, tower).reshape([
      SEEDS.length,
      VISION.width,
    ]);
  }

  it('sees the class token and the kept patches in their places, and nothing else', () => {
    const model = new ClipModel(MODEL, { seed: 1, precision: 'fp32', patchDropout: 0.6 });
    tf.tidy(() => {
      const ours = model.features(pixels(), { training: true, seeds: SEEDS }).dataSync();
      const theirs = reference(model, pixels(), 0.6).dataSync();
      ours.forEach((value, i) => void expect(Math.abs(value - theirs[i]!)).toBeLessThan(2e-5));
    });
    model.dispose();
  });

  it('sees everything where no seeds are given: in evaluation and export', () => {
    const dropping = new ClipModel(MODEL, { seed: 1, precision: 'fp32', patchDropout: 0.6 });
    const plain = new ClipModel(MODEL, { seed: 1, precision: 'fp32' });
    tf.tidy(() => {
      const all = plain.encodeImage(pixels(), { training: true, seeds: SEEDS }).dataSync();
      expect(dropping.encodeImage(pixels()).dataSync()).toEqual(all);
      expect(dropping.encodeImage(pixels(), { seeds: SEEDS }).dataSync()).not.toEqual(all);
    });
    dropping.dispose();
    plain.dispose();
  });
});
