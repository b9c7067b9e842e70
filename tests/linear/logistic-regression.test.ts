import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RandomStream } from '../../common/random.ts';
import { type Engine, loadEngine, tf } from '../../engine/index.ts';
import { sweepL2 } from '../../models/linear/l2-sweep.ts';
import {
  fitLogistic,
  type LabelledFeatures,
  type LinearClassifier,
  logits,
  predictedClasses,
  scores,
} from '../../models/linear/logistic-regression.ts';
import { newtonLogistic } from './newton.ts';

let engine: Engine;
beforeAll(async () => {
  engine = await loadEngine({ engine: 'auto', device: 'cpu', threads: 1 });
});
afterAll(() => engine.close());

/** Overlapping clouds with an offset far from zero and one nearly constant dimension: badly conditioned unless centred. */
function clouds(samples: number, dimensions: number, classes: number, seed = 1): LabelledFeatures {
  const stream = new RandomStream(seed, 'clouds');
  const centres = Array.from({ length: classes * dimensions }, () => stream.normal(0, 0.7));
  const labels_N = Int32Array.from({ length: samples }, (_, n) => n % classes);
  const features_ND = new Float32Array(samples * dimensions);
  for (let i = 0; i < features_ND.length; i++) {
    const d = i % dimensions;
    const label = labels_N[Math.floor(i / dimensions)]!;
    const spread = d === 0 ? 0.05 : 1;
    features_ND[i] = 3 + spread * (centres[label * dimensions + d]! + stream.normal(0, 1));
  }
  return { features_ND, labels_N, dimensions };
}

function rowsOf({ features_ND, dimensions }: LabelledFeatures): number[][] {
  return Array.from({ length: features_ND.length / dimensions }, (_, n) =>
    Array.from(features_ND.subarray(n * dimensions, (n + 1) * dimensions)),
  );
}

/** Largest difference to Newton's answer, biases compared up to their common shift. */
function distance({ weights_DK, bias_K, classes, dimensions }: LinearClassifier, reference: number[][]): number {
  const mean = bias_K.reduce((sum, b) => sum + b, 0) / classes;
  let worst = 0;
  reference.forEach((row, k) => {
    for (let d = 0; d < dimensions; d++) worst = Math.max(worst, Math.abs(row[d]! - weights_DK[d * classes + k]!));
    worst = Math.max(worst, Math.abs(row[dimensions]! - (bias_K[k]! - mean)));
  });
  return worst;
}

describe('multinomial logistic regression', () => {
  it.each([1e-1, 1e-3, 1e-5])('finds what an independent Newton solver finds, at λ = %f', (l2) => {
    const samples = clouds(90, 4, 3);
    const fit = fitLogistic(samples, { classes: 3, l2, tolerance: 1e-9 });
    const reference = newtonLogistic({ features: rowsOf(samples), labels: [...samples.labels_N], classes: 3, l2 });
    expect(fit.converged).toBe(true);
    expect(fit.gradientNormRelative).toBeLessThanOrEqual(1e-9);
    const size = Math.max(...reference.flat().map(Math.abs));
    expect(distance(fit.classifier, reference)).toBeLessThan(1e-5 * size);
  });

  it('finds the same optimum with the products on the engine', () => {
    const samples = clouds(300, 16, 5);
    const host = fitLogistic(samples, { classes: 5, l2: 1e-4, tolerance: 1e-6, products: 'host' });
    const before = tf.memory().numTensors;
    const onEngine = fitLogistic(samples, { classes: 5, l2: 1e-4, tolerance: 1e-6, products: 'engine' });
    expect(tf.memory().numTensors).toBe(before);
    expect(onEngine.converged).toBe(true);
    expect(onEngine.gradientNormRelative).toBeLessThanOrEqual(1e-6);
    expect(Math.abs(onEngine.objective - host.objective)).toBeLessThan(1e-9);
  });

  it('reports a gradient norm that finite differences of the objective confirm', () => {
    const samples = clouds(60, 3, 3);
    const loose = fitLogistic(samples, { classes: 3, l2: 0.01, iterationsMax: 2 });
    expect(loose.converged).toBe(false);
    const objective = (classifier: LinearClassifier) =>
      scores(classifier, samples).crossEntropy + 0.005 * classifier.weights_DK.reduce((s, w) => s + w * w, 0);
    expect(loose.objective).toBeCloseTo(objective(loose.classifier), 8);
    // The solver's variables are those of centred features; there a weight's step moves the bias by −step·mean.
    const means = [0, 1, 2].map((d) => rowsOf(samples).reduce((sum, row) => sum + row[d]! / 60, 0));
    const slopes: number[] = [];
    const step = 1e-5;
    const shifted = (d: number | undefined, k: number, by: number) => {
      const weights_DK = Float64Array.from(loose.classifier.weights_DK);
      const bias_K = Float64Array.from(loose.classifier.bias_K);
      if (d === undefined) bias_K[k]! += by;
      else {
        weights_DK[d * 3 + k]! += by;
        bias_K[k]! -= by * means[d]!;
      }
      return objective({ ...loose.classifier, weights_DK, bias_K });
    };
    for (const d of [0, 1, 2, undefined]) {
      for (const k of [0, 1, 2]) slopes.push((shifted(d, k, step) - shifted(d, k, -step)) / (2 * step));
    }
    expect(Math.hypot(...slopes)).toBeCloseTo(loose.gradientNorm, 6);
  });

  it('needs fewer evaluations from a neighbouring optimum than from nothing', () => {
    const samples = clouds(200, 8, 4);
    const neighbour = fitLogistic(samples, { classes: 4, l2: 1.1e-3 });
    const cold = fitLogistic(samples, { classes: 4, l2: 1e-3 });
    const warm = fitLogistic(samples, { classes: 4, l2: 1e-3, start: neighbour.classifier });
    expect(warm.evaluations).toBeLessThan(cold.evaluations);
    expect(Math.abs(warm.objective - cold.objective)).toBeLessThan(1e-9);
  });

  it('gives ties to the first class', () => {
    expect([...predictedClasses(Float64Array.of(1, 1, 0, 2, 3, 3), 3)]).toEqual([0, 1]);
  });

  it.each([
    ['no samples', { features_ND: new Float32Array(0), labels_N: new Int32Array(0), dimensions: 2 }, 1, /no samples/],
    ['one class', { features_ND: new Float32Array(4), labels_N: Int32Array.of(1, 1), dimensions: 2 }, 1, /two classes/],
    ['a wrong label', { features_ND: new Float32Array(4), labels_N: Int32Array.of(0, 5), dimensions: 2 }, 1, /label 5/],
    [
      'NaN',
      { features_ND: Float32Array.of(0, 1, Number.NaN, 2), labels_N: Int32Array.of(0, 1), dimensions: 2 },
      1,
      /NaN/,
    ],
    ['λ = 0', { features_ND: new Float32Array(4), labels_N: Int32Array.of(0, 1), dimensions: 2 }, 0, /l2 is 0/],
  ])('refuses %s', (_, samples, l2, message) => {
    expect(() => fitLogistic(samples, { classes: 3, l2 })).toThrow(message);
  });
});

describe('the L2 sweep', () => {
  it('takes the penalty that is best on the validation split, and every fit is an optimum', () => {
    const all = clouds(240, 20, 4, 7);
    const part = (from: number, to: number): LabelledFeatures => ({
      features_ND: all.features_ND.slice(from * 20, to * 20),
      labels_N: all.labels_N.slice(from, to),
      dimensions: 20,
    });
    const { trials, best } = sweepL2(part(0, 60), part(60, 240), { classes: 4, l2s: [1e-6, 1, 1e-2, 1e-1] });
    expect(trials.map(({ l2 }) => l2)).toEqual([1, 1e-1, 1e-2, 1e-6]);
    for (const { fit } of trials) expect(fit.gradientNormRelative).toBeLessThanOrEqual(1e-5);
    expect(best.validation.accuracy).toBe(Math.max(...trials.map(({ validation }) => validation.accuracy)));
    // 60 samples in 20 dimensions: hardly any penalty must overfit.
    expect(best.l2).toBeGreaterThan(1e-6);
    expect(logits(best.fit.classifier, all.features_ND)).toHaveLength(240 * 4);
  });
});
