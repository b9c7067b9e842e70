import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RandomStream } from '../../common/random.ts';
import { type Engine, loadEngine, tf } from '../../engine/index.ts';
import { classVotes, nearestNeighbours } from '../../models/linear/knn.ts';

let engine: Engine;
beforeAll(async () => {
  engine = await loadEngine({ engine: 'auto', device: 'cpu', threads: 1 });
});
afterAll(() => engine.close());

function random(rows: number, dimensions: number, seed: number): Float32Array {
  const stream = new RandomStream(seed, 'rows');
  return Float32Array.from({ length: rows * dimensions }, () => stream.normal(0, 2));
}

function cosine(a: Float32Array, b: Float32Array): number {
  let dot = 0;
  let aa = 0;
  let bb = 0;
  a.forEach((value, i) => {
    dot += value * b[i]!;
    aa += value * value;
    bb += b[i]! * b[i]!;
  });
  return dot / Math.sqrt(aa * bb);
}

describe('nearest neighbours', () => {
  it('are those of a plain search in fp64', () => {
    const features_ND = random(50, 6, 1);
    const queries = random(9, 6, 2);
    const before = tf.memory().numTensors;
    const found = nearestNeighbours({ features_ND, dimensions: 6 }, queries, { count: 7 });
    expect(tf.memory().numTensors).toBe(before);
    for (let q = 0; q < 9; q++) {
      const similarities = Array.from({ length: 50 }, (_, n) =>
        cosine(queries.subarray(q * 6, q * 6 + 6), features_ND.subarray(n * 6, n * 6 + 6)),
      );
      const order = similarities.map((_, n) => n).sort((a, b) => similarities[b]! - similarities[a]!);
      expect([...found.rows_QC.subarray(q * 7, q * 7 + 7)]).toEqual(order.slice(0, 7));
      expect(found.similarities_QC[q * 7]).toBeCloseTo(similarities[order[0]!]!, 5);
    }
  });

  it('leave a query itself out, and give ties to the first row', () => {
    const features_ND = Float32Array.of(1, 0, 0, 1, 2, 0, 3, 0);
    const found = nearestNeighbours({ features_ND, dimensions: 2 }, features_ND, { count: 2, selfRow: (q) => q });
    expect([...found.rows_QC]).toEqual([2, 3, 0, 2, 0, 3, 0, 2]);
  });

  it('are at most as many as there are rows, and none is refused', () => {
    const bank = { features_ND: random(3, 2, 1), dimensions: 2 };
    expect(nearestNeighbours(bank, random(1, 2, 2), { count: 20 }).count).toBe(3);
    expect(() =>
      nearestNeighbours({ features_ND: new Float32Array(0), dimensions: 2 }, random(1, 2, 2), { count: 20 }),
    ).toThrow(/0 rows/);
  });
});

describe('class votes', () => {
  const neighbours = {
    count: 3,
    rows_QC: Int32Array.of(0, 1, 2),
    similarities_QC: Float32Array.of(0.9, 0.5, 0.4),
  };
  const labels = Int32Array.of(1, 0, 0);

  it('count one each without a temperature', () => {
    expect([...classVotes(neighbours, labels, { classes: 2 })]).toEqual([2, 1]);
  });

  it('are weighted by exp(s/T): one very near neighbour outweighs two far ones', () => {
    const [far, near] = classVotes(neighbours, labels, { classes: 2, temperature: 0.07 });
    expect(near).toBe(1);
    expect(far).toBeCloseTo(Math.exp(-0.4 / 0.07) + Math.exp(-0.5 / 0.07), 6);
  });
});
