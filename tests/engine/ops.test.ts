import { beforeAll, describe, expect, it } from 'vitest';
import { loadEngine, patchify, pixelsToTensor, tf } from '../../engine/index.ts';
import { engineNames, hasTorch } from '../support/engines.ts';
import { TOKEN_CASES as CASES } from '../support/op-cases.ts';
import { checkAgainstPlain, checkGradients, checkHalf } from '../support/op-check.ts';

describe.skipIf(!hasTorch)('a fused kernel equals the composition of plain tfjs ops, in value and gradients', () => {
  it.each(Object.keys(CASES))('%s', (name) => checkAgainstPlain(CASES[name]!));
});

describe.each(engineNames)('gradients by central differences on %s', (engine) => {
  it.each(Object.keys(CASES).filter((name) => !name.includes('fp32')))('%s', (name) =>
    checkGradients(engine, CASES[name]!),
  );
});

describe.skipIf(!hasTorch)('in bf16', () => {
  beforeAll(async () => void (await loadEngine({ engine: 'torch', threads: 1 })));

  it.each([
    'linear',
    'layerNorm',
    'addLayerNorm',
    'gelu',
    'mlp',
    'attention',
    'causal attention',
    'l2Normalize',
    'selectTokens',
  ])('%s stays within bf16 rounding of fp32, with fp32 parameter gradients', (name) => checkHalf(CASES[name]!, 3e-2));
});

describe.each(engineNames)('pixels on %s', (engine) => {
  beforeAll(async () => void (await loadEngine({ engine, threads: 1 })));

  it('are normalised per channel', () => {
    const options = { mean: [0.5, 0.4, 0.3], std: [0.2, 0.25, 0.5], precision: 'fp32' } as const;
    const values = tf.tidy(() => pixelsToTensor(new Uint8Array([0, 128, 255]), [1, 1, 1, 3], options).dataSync());
    const expected = [0 - 0.5, 128 / 255 - 0.4, 1 - 0.3].map((value, c) => value / options.std[c]!);
    for (const [c, value] of values.entries()) expect(value).toBeCloseTo(expected[c]!, 5);
  });

  it('are cut into patches in channel, row, column order', () => {
    const patches = tf.tidy(() => patchify(tf.reshape(tf.range(0, 4 * 4 * 3), [1, 4, 4, 3]), 2).arraySync());
    // Second patch: rows 0–1, columns 2–3; element (row, column, channel) is (row·4 + column)·3 + channel.
    expect(patches[0]![1]).toEqual([6, 9, 18, 21, 7, 10, 19, 22, 8, 11, 20, 23]);
  });

  it('that do not fit their shape are refused', () => {
    const options = { mean: [0, 0, 0], std: [1, 1, 1], precision: 'fp32' } as const;
    expect(() => pixelsToTensor(new Uint8Array(5), [1, 1, 1, 3], options)).toThrow(/does not fit 5 bytes/);
  });
});
