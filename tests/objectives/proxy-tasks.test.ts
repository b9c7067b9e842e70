import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RandomStream } from '../../common/random.ts';
import { type Engine, loadEngine, type Tensor2D, tf } from '../../engine/index.ts';
import { textBatch } from '../../models/clip/text-tower.ts';
import { maskText } from '../../models/text/masked-text.ts';
import { laneMixing, mixed } from '../../worker/objectives/mixup.ts';
import { allQuarterTurns, quarterTurned, turnedEach } from '../../worker/objectives/quarter-turns.ts';
import { pairTurns } from '../../worker/objectives/rotation-pairs.ts';
import { smoothedTargets, softmaxLoss } from '../../worker/objectives/softmax-loss.ts';
import { autoEngines } from '../support/engines.ts';

const seedsOf = (count: number) => {
  const random = new RandomStream('seeds');
  return new Uint32Array(count).map(() => random.uint32());
};

describe.each(autoEngines)('on engine %s', (name) => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await loadEngine({ engine: name, threads: 1 });
  });
  afterAll(() => engine.close());

  it('turns a picture against the clock, as numpy’s rot90', () => {
    const values = (turns: number) =>
      tf.tidy(() => [...quarterTurned(tf.tensor4d([1, 2, 3, 4], [1, 2, 2, 1]), turns).dataSync()]);
    expect([0, 1, 2, 3].map(values)).toEqual([
      [1, 2, 3, 4],
      [2, 4, 1, 3],
      [4, 3, 2, 1],
      [3, 1, 4, 2],
    ]);
  });

  it('turns each picture by its own count, and four turns are none', () => {
    const random = new RandomStream('pictures');
    tf.tidy(() => {
      const x = tf.tensor4d(
        new Float32Array(4 * 5 * 5 * 3).map(() => random.uniform()),
        [4, 5, 5, 3],
      );
      const all = allQuarterTurns(x).dataSync();
      const each = turnedEach(x, Int32Array.of(2, 0, 3, 1)).dataSync();
      [2, 0, 3, 1].forEach((turns, row) => {
        const begin = (turns * 4 + row) * 75;
        expect(each.slice(row * 75, (row + 1) * 75)).toEqual(all.slice(begin, begin + 75));
      });
      expect(quarterTurned(quarterTurned(x, 3), 1).dataSync()).toEqual(x.dataSync());
    });
  });

  it('refuses to turn pictures that are not square', () => {
    const wide = tf.zeros([1, 2, 3, 1]);
    expect(() => quarterTurned(wide, 1)).toThrow('Cannot turn pictures: they must be square: got 2×3');
    wide.dispose();
  });

  it.each([0, 0.1])('has the slopes of the cross entropy, smoothing %f', (smoothing) => {
    const [rows, classes] = [5, 4];
    const random = new RandomStream('logits');
    const logits = new Float32Array(rows * classes).map(() => random.normal());
    const labels = Int32Array.of(0, 3, 3, 1, 2);
    const plainLoss = (values: ArrayLike<number>) => {
      let sum = 0;
      for (let i = 0; i < rows; i++) {
        const row = Array.from({ length: classes }, (_, k) => values[i * classes + k]!);
        const logSum = Math.log(row.reduce((total, value) => total + Math.exp(value), 0));
        row.forEach((value, k) => {
          sum -= ((k === labels[i] ? 1 - smoothing : 0) + smoothing / classes) * (value - logSum);
        });
      }
      return sum;
    };
    const logits_RK = tf.tensor2d(logits, [rows, classes]);
    const before = tf.memory().numTensors;
    const { dLogits_RK, lossSum } = softmaxLoss(engine, logits_RK, smoothedTargets(labels, classes, smoothing));
    const ours = dLogits_RK.dataSync();
    dLogits_RK.dispose();
    expect(tf.memory().numTensors).toBe(before);
    logits_RK.dispose();
    expect(lossSum / plainLoss(logits)).toBeCloseTo(1, 5);
    ours.forEach((slope, index) => {
      const at = (step: number) => plainLoss(Array.from(logits, (value, i) => (i === index ? value + step : value)));
      expect(Math.abs(slope - (at(1e-5) - at(-1e-5)) / 2e-5)).toBeLessThan(1e-5);
    });
  });

  it('mixes rows with their partners’, and targets too', () => {
    const mixing = { partner: Int32Array.of(1, 2, 0), share: Float32Array.of(1, 0.25, 0) };
    tf.tidy(() => {
      const rows = tf.tensor2d([1, 10, 2, 20, 4, 40], [3, 2]);
      expect([...mixed(rows, mixing).dataSync()]).toEqual([1, 10, 3.5, 35, 1, 10]);
      const sums = tf.sum(mixed(smoothedTargets(Int32Array.of(0, 1, 1), 2, 0.2), mixing) as Tensor2D, 1).dataSync();
      for (const sum of sums) expect(sum).toBeCloseTo(1, 6);
    });
  });
});

describe('quarter turns of pairs', () => {
  it('are a sample’s own, and all sixteen combinations come', () => {
    const seeds = seedsOf(3200);
    const { first, second } = pairTurns(seeds);
    const alone = pairTurns(seeds.slice(100, 101));
    expect([alone.first[0], alone.second[0]]).toEqual([first[100], second[100]]);
    const counts = new Array<number>(16).fill(0);
    first.forEach((turns, i) => {
      counts[turns * 4 + second[i]!]!++;
    });
    // 200 expected each, standard deviation 14.
    for (const count of counts) expect(Math.abs(count - 200)).toBeLessThan(60);
  });
});

describe('mixup within a lane', () => {
  it('gives everybody another partner, whatever the order of the samples', () => {
    const seeds = seedsOf(16);
    const { partner, share } = laneMixing(seeds, 0.4);
    expect([...partner].sort((a, b) => a - b)).toEqual([...partner.keys()]);
    partner.forEach((other, row) => {
      expect(other).not.toBe(row);
    });
    const backwards = laneMixing(seeds.slice().reverse(), 0.4);
    seeds.forEach((_, row) => {
      expect(backwards.share[15 - row]).toBe(share[row]);
      expect(15 - backwards.partner[15 - row]!).toBe(partner[row]);
    });
  });

  it('leaves the only sample of a lane as it is', () => {
    expect([...laneMixing(seedsOf(1), 1).partner]).toEqual([0]);
  });

  it.each([0.2, 1, 4])('draws shares from Beta(α, α) for α = %f: mean ½, variance 1/(4(2α + 1))', (alpha) => {
    const { share } = laneMixing(seedsOf(20_000), alpha);
    const mean = share.reduce((sum, value) => sum + value, 0) / share.length;
    const variance = share.reduce((sum, value) => sum + (value - mean) ** 2, 0) / share.length;
    expect(share.every((value) => value >= 0 && value <= 1)).toBe(true);
    expect(mean).toBeCloseTo(0.5, 1.7);
    expect(variance * 4 * (2 * alpha + 1)).toBeCloseTo(1, 1.3);
  });
});

describe('the cloze', () => {
  const TEXT = { contextLength: 24, vocabSize: 1000, width: 8, heads: 1, layers: 1, mlpRatio: 1 };
  const [START, END] = [998, 999];

  /** Captions of so many words each. */
  function captionsOf(words: readonly number[]): Int32Array {
    const ids = new Int32Array(words.length * TEXT.contextLength);
    const random = new RandomStream('captions');
    words.forEach((count, row) => {
      const own = [START, ...Array.from({ length: count }, () => 1 + random.integer(900)), END];
      ids.set(own, row * TEXT.contextLength);
    });
    return ids;
  }

  const maskRatio = 0.15;
  const mask = (ids: Int32Array, seeds: Uint32Array, ratio = maskRatio) =>
    maskText(textBatch(ids, seeds.length, TEXT), seeds, { maskRatio: ratio, vocabSize: TEXT.vocabSize });

  it('asks for a fixed share of each caption’s words, at least one, never for start, end or padding', () => {
    const words = Array.from({ length: 300 }, (_, i) => 1 + (i % 20));
    const ids = captionsOf(words);
    const { places, targets, tokens } = mask(ids, seedsOf(words.length));
    const counts = new Array<number>(words.length).fill(0);
    places.forEach((place, m) => {
      const [row, column] = [Math.floor(place / tokens), place % tokens];
      counts[row]!++;
      expect(column).toBeGreaterThan(0);
      expect(column).toBeLessThanOrEqual(words[row]!);
      expect(targets[m]).toBe(ids[row * TEXT.contextLength + column]);
    });
    expect(new Set(places).size).toBe(places.length);
    expect(counts).toEqual(words.map((count) => Math.max(1, Math.round(maskRatio * count))));
  });

  it('hides 80 %, replaces 10 % and leaves 10 % of them, and nothing else', () => {
    const words = new Array<number>(2000).fill(20);
    const ids = captionsOf(words);
    const plain = textBatch(ids, words.length, TEXT);
    const { places, hidden, ids: shown, targets } = mask(ids, seedsOf(words.length));
    const asked = new Set(places);
    shown.forEach((id, place) => {
      if (asked.has(place)) return;
      expect(id).toBe(plain.ids[place]);
      expect(hidden[place]).toBe(0);
    });
    const share = (of: (place: number, m: number) => boolean) =>
      [...places].filter((place, m) => of(place, m)).length / places.length;
    expect(share((place) => hidden[place] === 1)).toBeCloseTo(0.8, 1.5);
    expect(share((place, m) => hidden[place] === 0 && shown[place] !== targets[m])).toBeCloseTo(0.1, 1.5);
    expect(share((place, m) => hidden[place] === 0 && shown[place] === targets[m])).toBeCloseTo(0.1, 1.5);
  });

  it('is a caption’s own: the same beside any others', () => {
    const ids = captionsOf([3, 20, 9]);
    const seeds = seedsOf(3);
    const all = mask(ids, seeds);
    const last = mask(ids.slice(2 * TEXT.contextLength), seeds.slice(2));
    const ofLast = [...all.places].filter((place) => place >= 2 * all.tokens).map((place) => place % all.tokens);
    expect([...last.places]).toEqual(ofLast);
    expect([...last.ids.slice(0, 11)]).toEqual([...all.ids.slice(2 * all.tokens, 2 * all.tokens + 11)]);
  });

  it('of captions without a word has one guess that counts for nothing', () => {
    const { places, weights, hidden } = mask(captionsOf([0, 0]), seedsOf(2));
    expect([...places]).toEqual([0]);
    expect([...weights]).toEqual([0]);
    expect(hidden.every((flag) => flag === 0)).toBe(true);
  });
});
