import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RandomStream } from '../../common/random.ts';
import { type Engine, loadEngine } from '../../engine/index.ts';
import { domainDistance } from '../../transfer/domain/diagnostics/domain-distance.ts';
import { principalComponents } from '../../transfer/domain/diagnostics/pca.ts';
import { tsne } from '../../transfer/domain/diagnostics/tsne.ts';
import { targetInformation } from '../../transfer/domain/target-criterion.ts';

let engine: Engine;
beforeAll(async () => {
  engine = await loadEngine({ engine: 'auto', device: 'cpu', threads: 1 });
});
afterAll(() => engine.close());

const D = 6;

/** Rows around a mean that is `shift` in every dimension. */
function rows(count: number, shift: number, key: string): Float32Array {
  const stream = new RandomStream('rows', key);
  return Float32Array.from({ length: count * D }, () => stream.normal(shift, 1));
}

const domain = (count: number, shift: number, key: string) => ({ features_ND: rows(count, shift, key), dimensions: D });

describe('the distance of domains', () => {
  it('is 2 where a line tells them apart, about 0 where nothing does, and grows with the gap', () => {
    const source = domain(120, 0, 'source');
    const apart = domainDistance(source, domain(80, 8, 'far'), 1)!;
    expect(apart).toEqual({ accuracy: 1, proxyADistance: 2, samples: 160 });
    const alike = domainDistance(source, domain(120, 0, 'same'), 1)!;
    expect(Math.abs(alike.accuracy - 0.5)).toBeLessThan(0.12);
    expect(alike.proxyADistance).toBeCloseTo(2 * (1 - 2 * (1 - alike.accuracy)), 12);
    const near = domainDistance(source, domain(120, 0.6, 'near'), 1)!;
    expect(near.accuracy).toBeGreaterThan(0.65);
    expect(near.accuracy).toBeLessThan(1);
    expect(domainDistance(source, domain(120, 0.6, 'near'), 1)).toEqual(near);
  });

  it('does not depend on the scale of features, and says nothing of a handful of pictures', () => {
    const [source, target] = [domain(60, 0, 'a'), domain(60, 0.5, 'b')];
    const times = (factor: number) => ({ ...target, features_ND: target.features_ND.map((x) => x * factor) });
    const scaled = { ...source, features_ND: source.features_ND.map((x) => x * 1024) };
    expect(domainDistance(scaled, times(1024), 1)!.accuracy).toBe(domainDistance(source, target, 1)!.accuracy);
    expect(domainDistance(domain(7, 0, 'a'), target, 1)).toBeUndefined();
  });
});

describe('principal components', () => {
  it('find the directions of largest variance, from more rows than columns and from fewer', () => {
    const stream = new RandomStream('line');
    // Spread 5 along (0.6, 0.8), 1 across it.
    const points = Array.from({ length: 200 }, () => [stream.normal(0, 5), stream.normal(0, 1)] as const);
    const flat = Float32Array.from(
      points.flatMap(([along, across]) => [0.6 * along - 0.8 * across, 0.8 * along + 0.6 * across]),
    );
    const { scores, shares } = principalComponents(flat, 2, 2);
    expect(shares[0]).toBeGreaterThan(0.93);
    expect(shares[0]! + shares[1]!).toBeCloseTo(1, 9);
    const mean = points.reduce((sum, [along]) => sum + along, 0) / points.length;
    const agreement = points.reduce((sum, [along], n) => sum + (along - mean) * scores[2 * n]!, 0);
    const [a, b] = [
      points.reduce((s, [x]) => s + (x - mean) ** 2, 0),
      scores.reduce((s, x, i) => s + (i % 2 ? 0 : x * x), 0),
    ];
    expect(Math.abs(agreement) / Math.sqrt(a * b)).toBeGreaterThan(0.98);

    // Four rows of six columns: scores keep all distances.
    const few = rows(4, 0, 'few');
    const all = principalComponents(few, D, 3);
    const distance = (values: ArrayLike<number>, width: number, i: number, j: number) =>
      Array.from({ length: width }, (_, d) => (values[i * width + d]! - values[j * width + d]!) ** 2).reduce(
        (x, y) => x + y,
      );
    expect(distance(all.scores, 3, 0, 3)).toBeCloseTo(distance(few, D, 0, 3), 5);
    expect(distance(all.scores, 3, 1, 2)).toBeCloseTo(distance(few, D, 1, 2), 5);
  });
});

describe('t-SNE', () => {
  it('keeps neighbours together and clusters apart, to the same bits each time', () => {
    const clusters = 4;
    const each = 15;
    const data = Float32Array.from(
      Array.from({ length: clusters }, (_, c) => [...rows(each, 6 * c, `cluster ${c}`)]).flat(),
    );
    const y = tsne(data, D, { perplexity: 10, iterations: 400 });
    const nearest = (i: number) => {
      const squared = (j: number) => (y[2 * i]! - y[2 * j]!) ** 2 + (y[2 * i + 1]! - y[2 * j + 1]!) ** 2;
      const others = Array.from({ length: clusters * each }, (_, j) => j).filter((j) => j !== i);
      return others.reduce((best, j) => (squared(j) < squared(best) ? j : best));
    };
    const together = Array.from({ length: clusters * each }, (_, i) => i).filter(
      (i) => Math.floor(i / each) === Math.floor(nearest(i) / each),
    );
    expect(together.length).toBe(clusters * each);
    expect(y.every(Number.isFinite)).toBe(true);
    expect(tsne(data, D, { perplexity: 10, iterations: 400 })).toEqual(y);
  });

  it('takes equal rows, and refuses more points than it can hold', () => {
    expect(tsne(new Float32Array(6 * D), D, { iterations: 20 }).every(Number.isFinite)).toBe(true);
    expect(() => tsne(new Float32Array(1001 * D), D)).toThrow(/exact t-SNE takes 4 to 1000/);
  });
});

describe('what predictions tell of unlabelled pictures', () => {
  it('is log K where they are sure and of all classes, 0 where they are unsure or of one class', () => {
    const sure = Float64Array.of(50, 0, 0, 0, 50, 0, 0, 0, 50);
    expect(targetInformation(sure, 3).information).toBeCloseTo(Math.log(3), 9);
    expect(targetInformation(sure, 3).entropy).toBeCloseTo(0, 9);
    const unsure = targetInformation(new Float64Array(9), 3);
    expect(unsure.entropy).toBeCloseTo(Math.log(3), 9);
    expect(unsure.information).toBeCloseTo(0, 9);
    expect(targetInformation(Float64Array.of(50, 0, 0, 50, 0, 0), 3).information).toBeCloseTo(0, 9);
    // By hand: predictions (¾, ¼) and (¼, ¾).
    const odds = Math.log(3);
    const expected = Math.log(2) - (0.75 * Math.log(4 / 3) + 0.25 * Math.log(4));
    expect(targetInformation(Float64Array.of(odds, 0, 0, odds), 2).information).toBeCloseTo(expected, 12);
  });
});
