import { beforeAll, describe, expect, it } from 'vitest';
import { RandomStream } from '../../common/random.ts';
import { attention, loadEngine, recordForward, type Tensor3D, tf, toCompute, toFloat32 } from '../../engine/index.ts';
import { hasTorch } from '../support/engines.ts';

/**
 * The kernel cuts queries into blocks and columns into strips, by length and mask: one whole block up to 128 tokens, blocks of 64 beyond, of 32
 * where causal. Lengths on each side of every border.
 */
const LENGTHS = [1, 2, 15, 16, 31, 33, 50, 64, 65, 77, 97, 128, 129, 193];

interface Result {
  readonly output: Float32Array;
  readonly gradient: Float32Array;
}

async function evaluate(
  engine: 'cpu' | 'torch',
  shape: { tokens: number; heads: number; headWidth: number; causal: boolean; bf16?: boolean },
): Promise<Result> {
  await loadEngine({ engine, threads: 2 });
  const { tokens, heads, headWidth, causal, bf16 = false } = shape;
  const size = 2 * tokens * 3 * heads * headWidth;
  const random = new RandomStream('attention', tokens, headWidth);
  const values = Float32Array.from({ length: size }, () => random.normal());
  const qkv = tf.tidy(() => tf.variable(tf.tensor3d(values, [2, tokens, 3 * heads * headWidth])));
  const recording = recordForward(() => [
    toFloat32(attention(toCompute(qkv as unknown as Tensor3D, bf16 ? 'bf16' : 'fp32'), heads, { causal })),
  ]);
  const output = recording.outputs[0]!.dataSync<'float32'>().slice();
  const upstream = tf.tidy(() => tf.cos(tf.reshape(tf.range(0, output.length), recording.outputs[0]!.shape)));
  let gradient = new Float32Array();
  recording.backward([upstream], [qkv], (_, g) => {
    gradient = g.dataSync<'float32'>().slice();
  });
  tf.dispose([qkv, upstream]);
  return { output, gradient };
}

function relativeDifference(a: Float32Array, b: Float32Array): number {
  const largest = a.reduce((max, value) => Math.max(max, Math.abs(value)), 1e-30);
  return a.reduce((max, value, i) => Math.max(max, Math.abs(value - b[i]!)), 0) / largest;
}

describe.skipIf(!hasTorch)('attention at every block border', () => {
  beforeAll(async () => void (await loadEngine({ engine: 'torch', threads: 2 })));

  describe.each([false, true])('causal: %s', (causal) => {
    it.each(LENGTHS)('%i tokens equal the plain composition', async (tokens) => {
      const shape = { tokens, heads: 2, headWidth: 24, causal };
      const plain = await evaluate('cpu', shape);
      const fused = await evaluate('torch', shape);
      expect(relativeDifference(plain.output, fused.output)).toBeLessThan(2e-6);
      expect(relativeDifference(plain.gradient, fused.gradient)).toBeLessThan(2e-6);
    });

    it.each(LENGTHS)('%i tokens in bf16 stay within its rounding', async (tokens) => {
      const shape = { tokens, heads: 2, headWidth: 64, causal };
      const full = await evaluate('torch', shape);
      const half = await evaluate('torch', { ...shape, bf16: true });
      expect(relativeDifference(full.output, half.output)).toBeLessThan(2e-2);
      expect(relativeDifference(full.gradient, half.gradient)).toBeLessThan(2e-2);
    });
  });

  it.each([1, 7, 17, 40])('heads %i wide, also odd ones in bf16', async (headWidth) => {
    const shape = { tokens: 37, heads: 3, headWidth, causal: true };
    const plain = await evaluate('cpu', shape);
    const fused = await evaluate('torch', shape);
    const half = await evaluate('torch', { ...shape, bf16: true });
    expect(relativeDifference(plain.gradient, fused.gradient)).toBeLessThan(2e-6);
    expect(relativeDifference(plain.gradient, half.gradient)).toBeLessThan(3e-2);
  });
});

describe.each(hasTorch ? (['cpu', 'torch'] as const) : (['cpu'] as const))(
  'attention with padding on engine %s',
  (engine) => {
    beforeAll(async () => void (await loadEngine({ engine, threads: 1 })));

    it('gives a sequence what it gives it alone, whatever is in its padding, and no gradient to the padding', () => {
      const [heads, width, tokens] = [2, 8, 6];
      const lengths = Int32Array.from([6, 1, 4]);
      const random = new RandomStream('padding');
      const values = Float32Array.from({ length: 3 * tokens * 3 * width }, () => random.normal());
      const row = 3 * width;
      for (const half of [false, true]) {
        const precision = half ? 'bf16' : 'fp32';
        const qkv = tf.tidy(() => tf.variable(tf.tensor3d(values, [3, tokens, row])));
        const recording = recordForward(() => {
          const mixed = attention(toCompute(qkv as unknown as Tensor3D, precision), heads, { lengths });
          // What stands in the padding is of no concern.
          const seen = [...lengths].flatMap((length) => Array.from({ length: tokens }, (_, t) => (t < length ? 1 : 0)));
          return [tf.mul(toFloat32(mixed), tf.tensor(seen, [3, tokens, 1]))];
        });
        const output = recording.outputs[0]!.dataSync<'float32'>().slice();
        const upstream = tf.tidy(() => tf.cos(tf.reshape(tf.range(0, output.length), [3, tokens, width])));
        recording.backward([upstream], [qkv], (_, gradient) => {
          const slopes = gradient.dataSync<'float32'>();
          lengths.forEach((length, b) => {
            const at = (t: number) => slopes.slice((b * tokens + t) * row, (b * tokens + t + 1) * row);
            for (let t = length; t < tokens; t++) expect(at(t).every((slope) => slope === 0)).toBe(true);
            for (let t = 0; t < length; t++) expect(at(t).some((slope) => slope !== 0)).toBe(true);
          });
        });
        lengths.forEach((length, b) => {
          const own = values.slice(b * tokens * row, (b * tokens + length) * row);
          const alone = tf.tidy(() =>
            toFloat32(attention(toCompute(tf.tensor3d(own, [1, length, row]), precision), heads)).dataSync<'float32'>(),
          );
          const ours = output.slice(b * tokens * width, (b * tokens + length) * width);
          expect(relativeDifference(alone, ours)).toBeLessThan(half ? 2e-2 : 2e-6);
        });
        tf.dispose([qkv, upstream]);
      }
    });
  },
);
