import { describe, expect, it } from 'vitest';
import { RandomStream } from '../../common/random.ts';
import {
  addLayerNorm,
  addTokenAndPosition,
  attention,
  embedding,
  l2Normalize,
  layerNorm,
  linear,
  loadEngine,
  mlp,
  type Precision,
  recordForward,
  selectTokens,
  type Tensor3D,
  tf,
  toCompute,
} from '../../engine/index.ts';
import { hasTorch } from '../support/engines.ts';

const WIDTH = 192;
const TOKENS = 17;
const BATCH = 32;
const LAYERS = 2;
const VOCABULARY = 50;

const SHAPES: Record<string, number[]> = {
  table: [VOCABULARY, WIDTH],
  position: [TOKENS, WIDTH],
  token: [WIDTH],
  projection: [64, WIDTH],
};
for (let layer = 0; layer < LAYERS; layer++) {
  for (const norm of ['ln1', 'ln2'])
    Object.assign(SHAPES, { [`${norm}w${layer}`]: [WIDTH], [`${norm}b${layer}`]: [WIDTH] });
  Object.assign(SHAPES, {
    [`qkv${layer}`]: [3 * WIDTH, WIDTH],
    [`qkvb${layer}`]: [3 * WIDTH],
    [`out${layer}`]: [WIDTH, WIDTH],
  });
  Object.assign(SHAPES, {
    [`fc${layer}`]: [4 * WIDTH, WIDTH],
    [`fcb${layer}`]: [4 * WIDTH],
    [`proj${layer}`]: [WIDTH, 4 * WIDTH],
    [`projb${layer}`]: [WIDTH],
  });
}

function tower(p: Record<string, any>, ids: tf.Tensor, precision: Precision): tf.Tensor {
  let x: tf.Tensor = addTokenAndPosition(
    toCompute(embedding(p['table'], ids), precision) as Tensor3D,
    p['token'],
    p['position'],
  );
  for (let layer = 0; layer < LAYERS; layer++) {
    const get = (name: string) => p[`${name}${layer}`];
    const qkv = linear(layerNorm(x, get('ln1w'), get('ln1b'), 1e-5), get('qkv'), get('qkvb'));
    const mixed = linear(attention(qkv as Tensor3D, 3, { causal: layer === 1 }), get('out'), null);
    const { sum, normalised } = addLayerNorm(x, mixed, get('ln2w'), get('ln2b'), 1e-5);
    const hidden = { weight: get('fc'), bias: get('fcb') };
    x = tf.add(sum, mlp(normalised, hidden, { weight: get('proj'), bias: get('projb') }, 'gelu'));
  }
  return l2Normalize(linear(selectTokens(x as Tensor3D, 0), p['projection'], null));
}

/** Digest of the output and of every gradient. */
async function bits(threads: number, precision: Precision): Promise<Record<string, string>> {
  const engine = await loadEngine({ engine: 'torch', threads });
  const random = new RandomStream('determinism');
  const names = Object.keys(SHAPES);
  const variables = names.map((name) => {
    const shape = SHAPES[name]!;
    const values = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => random.normal(0, 0.1));
    return tf.tidy(() => tf.variable(tf.tensor(values, shape)));
  });
  const parameters = Object.fromEntries(names.map((name, i) => [name, variables[i]]));
  const ids = Int32Array.from({ length: BATCH * (TOKENS - 1) }, () => random.integer(VOCABULARY));
  const recording = recordForward(() => [tower(parameters, tf.tensor2d(ids, [BATCH, TOKENS - 1], 'int32'), precision)]);
  const output = recording.outputs[0]!;
  const result: Record<string, string> = { output: engine.digest([output]) };
  const seed = tf.tensor(
    Float32Array.from({ length: output.size }, () => random.normal()),
    output.shape,
  );
  recording.backward([seed], variables, (index, gradient) => {
    result[names[index]!] = engine.digest([gradient]);
  });
  tf.dispose([seed, ...variables]);
  return result;
}

describe.skipIf(!hasTorch)('outputs and all gradients of a tower have the same bits', () => {
  it.each(['fp32', 'bf16'] as const)('in %s with 1 and with 2 threads, and twice in a row', async (precision) => {
    const one = await bits(1, precision);
    expect(Object.keys(one).length).toBe(1 + Object.keys(SHAPES).length);
    expect(await bits(1, precision)).toEqual(one);
    expect(await bits(2, precision)).toEqual(one);
  });
});
