import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type Engine,
  loadEngine,
  type Precision,
  type Recording,
  recordForward,
  tf,
  toCompute,
  toFloat32,
} from '../../engine/index.ts';
import { type ParameterLookup, transformerPooled } from '../../models/clip/transformer.ts';
import { engineNames } from '../support/engines.ts';

const [BATCH, TOKENS, WIDTH, LAYERS] = [4, 33, 64, 6];
const ROWS = BATCH * TOKENS;

describe.each(engineNames)('memory on %s', (name) => {
  let engine: Engine;
  const names: string[] = [];
  const variables: tf.Variable[] = [];
  const byName = new Map<string, tf.Variable>();

  function parameter(key: string, shape: number[]): void {
    const size = shape.reduce((a, b) => a * b, 1);
    const values = Float32Array.from({ length: size }, (_, i) => 0.1 * Math.sin(names.length + 7 * i));
    const made = tf.tidy(() => tf.variable(tf.tensor(values, shape)));
    names.push(key);
    variables.push(made);
    byName.set(key, made);
  }

  beforeAll(async () => {
    engine = await loadEngine({ engine: name, threads: 1 });
    for (let block = 0; block < LAYERS; block++) {
      const at = (key: string, ...shape: number[]) => parameter(`blocks.${block}.${key}`, shape);
      for (const norm of ['ln_1', 'ln_2']) for (const part of ['weight', 'bias']) at(`${norm}.${part}`, WIDTH);
      at('attn.in_proj_weight', 3 * WIDTH, WIDTH);
      at('attn.in_proj_bias', 3 * WIDTH);
      at('attn.out_proj.weight', WIDTH, WIDTH);
      at('attn.out_proj.bias', WIDTH);
      at('mlp.c_fc.weight', 4 * WIDTH, WIDTH);
      at('mlp.c_fc.bias', 4 * WIDTH);
      at('mlp.c_proj.weight', WIDTH, 4 * WIDTH);
      at('mlp.c_proj.bias', WIDTH);
    }
  });
  afterAll(() => tf.dispose(variables));

  /** Through all blocks, recorded; the last works on one token per item after its attention. */
  function record(recomputedBlocks: number, precision: Precision = 'fp32'): Recording {
    return recordForward(() => {
      const x = tf.reshape(tf.sin(tf.range(0, ROWS * WIDTH)), [BATCH, TOKENS, WIDTH]) as tf.Tensor3D;
      const lookup = ((key: string) => byName.get(key)!) as unknown as ParameterLookup;
      const options = { prefix: 'blocks', layers: LAYERS, heads: 4, causal: false, quickGelu: false, pooledToken: 0 };
      return [toFloat32(transformerPooled(toCompute(x, precision), lookup, { ...options, recomputedBlocks }))];
    });
  }

  /** What a pass holds when it begins its backward, its highest point, and what is held whenever a gradient is reported. */
  function measure(recomputedBlocks: number, precision: Precision = 'fp32') {
    // The bf16 copies of the weights are made on first use and stay.
    record(0, precision).dispose();
    // One row of the residual stream per token.
    const unit = (precision === 'bf16' ? 2 : 4) * ROWS * WIDTH;
    const start = engine.memory().liveBytes;
    const units = (bytes: number) => (bytes - start) / unit;
    engine.resetPeakMemory();
    const recording = record(recomputedBlocks, precision);
    const afterForward = units(engine.memory().liveBytes);
    const peakForward = units(engine.memory().peakBytes);
    const seed = tf.ones([BATCH, WIDTH]);
    engine.resetPeakMemory();
    const atGradient = new Map<string, number>();
    recording.backward([seed], variables, (index) => atGradient.set(names[index]!, units(engine.memory().liveBytes)));
    seed.dispose();
    const peakBackward = units(engine.memory().peakBytes);
    return { afterForward, peakForward, peakBackward, atGradient, left: units(engine.memory().liveBytes) };
  }

  it('counts storage now, at its highest, and from a reset on', () => {
    const before = engine.memory();
    const x = tf.zeros([1000, 100]);
    const made = engine.memory();
    expect(made.liveBytes - before.liveBytes).toBeGreaterThanOrEqual(400_000);
    expect(made.liveBytes - before.liveBytes).toBeLessThan(410_000);
    const alias = tf.reshape(x, [100_000]);
    // TensorFlow shares storage inside, where nobody can see it: each of its tensors counts.
    const aliasBytes = name === 'tensorflow' ? 400_000 : 0;
    expect(Math.abs(engine.memory().liveBytes - made.liveBytes - aliasBytes)).toBeLessThan(1000);
    tf.dispose([x, alias]);
    const freed = engine.memory();
    expect(freed.liveBytes).toBe(before.liveBytes);
    expect(freed.peakBytes).toBeGreaterThanOrEqual(made.liveBytes);
    expect(freed.reservedBytes).toBeGreaterThanOrEqual(freed.liveBytes);
    engine.resetPeakMemory();
    expect(engine.memory().peakBytes).toBe(freed.liveBytes);
  });

  it('frees what each block saved as the sweep passes it', () => {
    const { afterForward, peakBackward, atGradient, left } = measure(0);
    expect(left).toBe(0);
    const blocks = Array.from({ length: LAYERS }, (_, i) => LAYERS - 1 - i);
    const levels = blocks.map((block) => atGradient.get(`blocks.${block}.ln_1.bias`)!);
    const perBlock = afterForward - measure(1).afterForward;
    for (let i = 1; i < levels.length; i++) expect(levels[i - 1]! - levels[i]!).toBeGreaterThan(0.9 * perBlock);
    expect(levels.at(-1)).toBeLessThan(2.5);
    // Besides what is saved only the gradients around one op are alive: at most its four-fold wide output's and input's.
    expect(peakBackward - afterForward).toBeLessThan(name === 'torch' ? 6 : 12);
  });

  it.runIf(name === 'torch').each(['fp32', 'bf16'] as const)(
    'holds no more than sixteen rows per token and block, in %s',
    (precision) => {
      // norm 1: sum, result · qkv 3 · attention's result · norm 2: sum, result · hidden 4 · activated 4; statistics and log-sum-exps besides.
      const perBlock = measure(0, precision).afterForward - measure(1, precision).afterForward + 1;
      expect(perBlock).toBeLessThan(16.4);
    },
  );

  it.each(name === 'torch' ? (['fp32', 'bf16'] as const) : (['fp32'] as const))(
    'holds only the residual stream of blocks that are computed again, in %s',
    (precision) => {
      const without = measure(0, precision);
      const some = measure(LAYERS / 2, precision);
      const all = measure(LAYERS, precision);
      expect(all.left).toBe(0);
      if (name === 'torch') expect(all.afterForward).toBeLessThan(1.2 * LAYERS);
      expect(some.afterForward).toBeLessThan(0.6 * without.afterForward);
      const peak = ({ peakForward, peakBackward }: ReturnType<typeof measure>) => Math.max(peakForward, peakBackward);
      expect(peak(all)).toBeLessThan(0.5 * peak(without));
    },
  );
});
