import { beforeAll, describe, expect, it } from 'vitest';
import { RandomStream } from '../../common/random.ts';
import { loadEngine, recordForward, type Tensor, type Tensor2D, tf } from '../../engine/index.ts';
import { coralLoss } from '../../transfer/domain/coral.ts';
import { Discriminator, domainLoss } from '../../transfer/domain/discriminator.ts';
import { MMD_WIDTHS, mmdLoss } from '../../transfer/domain/mmd.ts';
import { reversalCoefficient } from '../../transfer/domain/reversal-schedule.ts';
import { tuneLearningRate } from '../../transfer/tune/learning-rate.ts';
import { engineNames } from '../support/engines.ts';

const [S, T, F] = [7, 5, 4];
type Rows = readonly (readonly number[])[];

/** Two clouds, apart and of different shape. */
function clouds(): { source: number[][]; target: number[][] } {
  const stream = new RandomStream('clouds');
  const cloud = (rows: number, mean: number, std: number) =>
    Array.from({ length: rows }, () => Array.from({ length: F }, (_, f) => stream.normal(mean * f, std)));
  return { source: cloud(S, 0.1, 1), target: cloud(T, 0.4, 0.6) };
}

// In plain JavaScript and fp64, from the papers' formulas.

function coralReference(source: Rows, target: Rows): number {
  // Eq. 2: (DᵀD − (1ᵀD)ᵀ(1ᵀD)/n) / (n − 1).
  const covariance = (rows: Rows, a: number, b: number) => {
    const sum = (of: (row: readonly number[]) => number) => rows.reduce((total, row) => total + of(row), 0);
    const product = sum((row) => row[a]! * row[b]!);
    return (product - (sum((row) => row[a]!) * sum((row) => row[b]!)) / rows.length) / (rows.length - 1);
  };
  let squares = 0;
  for (let a = 0; a < F; a++) {
    for (let b = 0; b < F; b++) squares += (covariance(source, a, b) - covariance(target, a, b)) ** 2;
  }
  return squares / (4 * F * F);
}

const squaredDistance = (a: readonly number[], b: readonly number[]) =>
  a.reduce((sum, value, f) => sum + (value - b[f]!) ** 2, 0);

function medianReference(rows: Rows): number {
  const pairs = rows.flatMap((a, i) => rows.slice(0, i).map((b) => squaredDistance(a, b)));
  pairs.sort((a, b) => a - b);
  return pairs[Math.floor((pairs.length - 1) / 2)]!;
}

function mmdReference(source: Rows, target: Rows, median = medianReference([...source, ...target])): number {
  const kernel = (a: readonly number[], b: readonly number[]) =>
    MMD_WIDTHS.reduce((sum, width) => sum + Math.exp(-squaredDistance(a, b) / (width * median)), 0) / MMD_WIDTHS.length;
  const within = (rows: Rows) =>
    rows.reduce((sum, a, i) => sum + rows.reduce((s, b, j) => s + (i === j ? 0 : kernel(a, b)), 0), 0) /
    (rows.length * (rows.length - 1));
  const across = source.reduce((sum, a) => sum + target.reduce((s, b) => s + kernel(a, b), 0), 0);
  return within(source) + within(target) - (2 * across) / (source.length * target.length);
}

function domainReference(logits: readonly number[], sources: number): number {
  const sigmoid = (z: number) => 1 / (1 + Math.exp(-z));
  const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
  const source = mean(logits.slice(0, sources).map((z) => -Math.log(sigmoid(z))));
  return 0.5 * (source + mean(logits.slice(sources).map((z) => -Math.log(1 - sigmoid(z)))));
}

interface LossCase {
  readonly loss: (source: Tensor2D, target: Tensor2D) => Tensor;
  readonly reference: (source: Rows, target: Rows) => number;
}

const MEDIAN = medianReference([...clouds().source, ...clouds().target]);
const CASES: Readonly<Record<string, LossCase>> = {
  CORAL: { loss: coralLoss, reference: coralReference },
  // With a fixed median: the gradient does not go through it.
  MMD: {
    loss: (source, target) => mmdLoss(source, target, MEDIAN),
    reference: (source, target) => mmdReference(source, target, MEDIAN),
  },
  'the domain loss': {
    loss: (source, target) => domainLoss(tf.sum(tf.concat2d([source, target], 0), 1, true) as Tensor2D, S),
    reference: (source, target) =>
      domainReference(
        [...source, ...target].map((row) => row.reduce((a, b) => a + b, 0)),
        S,
      ),
  },
};

describe.each(engineNames)('losses between domains on %s', (engine) => {
  beforeAll(async () => void (await loadEngine({ engine, threads: 1 })));

  it.each(Object.keys(CASES))('%s has the value of its formula and the slope of central differences', (name) => {
    const before = tf.memory().numTensors;
    const { loss, reference } = CASES[name]!;
    const { source, target } = clouds();
    const [xs, xt] = [source, target].map((rows) => tf.tidy(() => tf.variable(tf.tensor2d(rows))));
    const recording = recordForward(() => [loss(xs as unknown as Tensor2D, xt as unknown as Tensor2D)]);
    expect(recording.outputs[0]!.dataSync()[0]).toBeCloseTo(reference(source, target), 5);
    const one = tf.scalar(1);
    const slopes: Float32Array[] = [];
    recording.backward([one], [xs!, xt!], (i, gradient) => {
      slopes[i] = new Float32Array(gradient.dataSync<'float32'>());
    });
    const step = 1e-5;
    for (const [side, rows] of [source, target].entries()) {
      for (const [n, row] of rows.entries()) {
        for (let f = 0; f < F; f++) {
          const kept = row[f]!;
          row[f] = kept + step;
          const above = reference(source, target);
          row[f] = kept - step;
          const below = reference(source, target);
          row[f] = kept;
          expect(slopes[side]![n * F + f]).toBeCloseTo((above - below) / (2 * step), 5);
        }
      }
    }
    tf.dispose([one, xs!, xt!]);
    expect(tf.memory().numTensors).toBe(before);
  });

  it('take MMD’s width from the pairs in hand, and are 0 in the mean for equal distributions', () => {
    const { source, target } = clouds();
    const value = (a: Rows, b: Rows) =>
      tf.tidy(
        () => mmdLoss(tf.tensor2d(a as number[][]), tf.tensor2d(b as number[][])).dataSync()[0]!,
      ) as unknown as number;
    expect(value(source, target)).toBeCloseTo(mmdReference(source, target), 5);
    const same = Array.from({ length: 40 }, (_, i) => {
      const stream = new RandomStream('same', i);
      const draw = () => Array.from({ length: 8 }, () => Array.from({ length: F }, () => stream.normal()));
      return value(draw(), draw());
    });
    // Unbiased: some are negative, and the mean is within four standard errors of 0.
    const mean = same.reduce((a, b) => a + b, 0) / same.length;
    const deviation = Math.sqrt(same.reduce((sum, one) => sum + (one - mean) ** 2, 0) / same.length);
    expect(Math.min(...same)).toBeLessThan(0);
    expect(Math.abs(mean)).toBeLessThan((4 * deviation) / Math.sqrt(same.length));
    expect(coralReference(source, source)).toBe(0);
  });

  it('let a discriminator descend its loss while the features climb it, by λ', () => {
    const before = tf.memory().numTensors;
    const reversal = { gamma: 10, max: 1 };
    const discriminator = new Discriminator({ featureWidth: F, width: 6, weight: 1, reversal, seed: 1 });
    const { source, target } = clouds();
    const moment = { step: 3, steps: 20 };
    const lambda = reversalCoefficient(moment, reversal);
    const [xs, xt] = [source, target].map((rows) => tf.tidy(() => tf.variable(tf.tensor2d(rows))));
    const sides = [xs, xt] as unknown as [Tensor2D, Tensor2D];
    const value = () => tf.tidy(() => discriminator.loss(...sides, moment).dataSync()[0]!) as unknown as number;
    const recording = recordForward(() => [discriminator.loss(...sides, moment)]);
    const one = tf.scalar(1);
    const weight = discriminator.parameters.find(({ name }) => name.endsWith('.6.weight'))!.variable;
    const slopes: Float32Array[] = [];
    recording.backward([one], [xs!, weight], (i, gradient) => {
      slopes[i] = new Float32Array(gradient.dataSync<'float32'>());
    });
    const step = 1e-2;
    const measured = (variable: tf.Variable, at: number) => {
      const values = new Float32Array(variable.dataSync<'float32'>());
      const [above, below] = [step, -step].map((by) => {
        const moved = values.slice();
        moved[at]! += by;
        tf.tidy(() => variable.assign(tf.tensor(moved, variable.shape)));
        return value();
      });
      tf.tidy(() => variable.assign(tf.tensor(values, variable.shape)));
      return (above! - below!) / (2 * step);
    };
    for (let at = 0; at < weight.size; at++) expect(slopes[1]![at]).toBeCloseTo(measured(weight, at), 3);
    for (let at = 0; at < 6; at++) expect(slopes[0]![at]).toBeCloseTo(-lambda * measured(xs!, at), 3);
    expect(Math.max(...slopes[0]!.map(Math.abs))).toBeGreaterThan(5e-3);
    expect(discriminator.finishStep()).toMatchObject({ reversal: lambda });
    tf.dispose([one, xs!, xt!]);
    discriminator.dispose();
    expect(tf.memory().numTensors).toBe(before);
  });
});

describe('the schedules of DANN', () => {
  it('raise λ from 0 towards its end, by the formula', () => {
    const schedule = { gamma: 10, max: 1 };
    const at = (step: number) => reversalCoefficient({ step, steps: 100 }, schedule);
    expect(at(0)).toBe(0);
    expect(at(50)).toBeCloseTo(2 / (1 + Math.exp(-5)) - 1, 12);
    expect(at(100)).toBeCloseTo(0.9999092, 6);
    // Transfer-Learn-Library's: α = 1 over 1,000 steps, whatever the length.
    const own = { gamma: 1, max: 1, steps: 1000 };
    expect(reversalCoefficient({ step: 500, steps: 20 }, own)).toBeCloseTo(2 / (1 + Math.exp(-0.5)) - 1, 12);
  });

  it('anneal the learning rate as μ₀ / (1 + 10·p)^0.75, behind a warm-up where one is asked for', () => {
    const recipe = { lr: 0.01, warmupSteps: 0, schedule: 'dann' } as const;
    expect(tuneLearningRate({ step: 0, steps: 100 }, recipe)).toBe(0.01);
    expect(tuneLearningRate({ step: 50, steps: 100 }, recipe)).toBeCloseTo(0.01 / 6 ** 0.75, 12);
    expect(tuneLearningRate({ step: 0, steps: 100 }, { ...recipe, warmupSteps: 4 })).toBeCloseTo(0.0025, 12);
  });
});
