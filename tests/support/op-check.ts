import { expect } from 'vitest';
import { RandomStream } from '../../common/random.ts';
import type { EngineName } from '../../engine/capabilities.ts';
import { loadEngine, recordForward, type Tensor, tf, toCompute, toFloat32 } from '../../engine/index.ts';

/** An op with the shapes of its differentiable inputs. */
export interface OpCase {
  readonly shapes: Readonly<Record<string, number[]>>;
  readonly run: (x: Record<string, any>) => Tensor;
}
export type Inputs = Record<string, { shape: number[]; values: Float32Array }>;

export function randomInputs(shapes: OpCase['shapes']): Inputs {
  return Object.fromEntries(
    Object.entries(shapes).map(([name, shape]) => {
      const random = new RandomStream('ops', name, shape.length);
      const values = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => random.normal());
      return [name, { shape, values }];
    }),
  );
}

/** Output, then each input's gradient of Σ output·cos(index). Leaves no tensor behind. */
export async function evaluate(
  engine: EngineName,
  inputs: Inputs,
  run: OpCase['run'],
  threads = 1,
): Promise<Float32Array[]> {
  const loaded = await loadEngine({ engine, threads });
  const before = tf.memory().numTensors;
  const names = Object.keys(inputs);
  const variables = names.map((name) =>
    tf.tidy(() => tf.variable(tf.tensor(inputs[name]!.values.slice(), inputs[name]!.shape))),
  );
  const recording = recordForward(() => [run(Object.fromEntries(names.map((name, i) => [name, variables[i]])))]);
  const output = recording.outputs[0]!;
  const results: Float32Array[] = [new Float32Array(output.size)];
  loaded.readInto(output, results[0]!);
  const weights = tf.tensor(
    Float32Array.from({ length: output.size }, (_, i) => Math.cos(i)),
    output.shape,
  );
  recording.backward([weights], variables, (index, gradient) => {
    expect(gradient.shape).toEqual(inputs[names[index]!]!.shape);
    results[index + 1] = new Float32Array(gradient.size);
    loaded.readInto(gradient, results[index + 1]!);
  });
  tf.dispose([weights, ...variables]);
  expect(tf.memory().numTensors).toBe(before);
  return results;
}

/** The fused kernel on torch and the composition of plain tfjs ops on cpu have the same value and gradients. */
export async function checkAgainstPlain({ shapes, run }: OpCase): Promise<void> {
  const inputs = randomInputs(shapes);
  const plain = await evaluate('cpu', inputs, run);
  const fused = await evaluate('torch', inputs, run);
  expect(fused.length).toBe(plain.length);
  for (const [i, values] of fused.entries()) expect(relativeDifference(plain[i]!, values)).toBeLessThan(2e-6);
}

/** Inputs that are activations; the others are parameters, which stay fp32. */
const ACTIVATIONS = ['x', 'd', 'qkv', 'residual'];

/** The op on bf16 copies of its activations. */
export function inHalf(run: OpCase['run']): OpCase['run'] {
  return (x) => {
    const halved = { ...x };
    for (const name of ACTIVATIONS) if (x[name]) halved[name] = toCompute(x[name], 'bf16');
    return toFloat32(run(halved));
  };
}

/**
 * In bf16 the op on torch stays within `tolerance` of itself in fp32.
 *
 * @param inputs default: as `checkAgainstPlain` has them
 * @param gradients whether they are compared too; where a rounded value falls to the other side of ReLU's kink they are not alike. Default true.
 */
export async function checkHalf(
  { shapes, run }: OpCase,
  tolerance: number,
  { inputs = randomInputs(shapes), gradients = true } = {},
): Promise<void> {
  const full = await evaluate('torch', inputs, run);
  const half = await evaluate('torch', inputs, inHalf(run));
  expect(half.length).toBe(full.length);
  for (const [i, values] of half.slice(0, gradients ? half.length : 1).entries())
    expect(relativeDifference(full[i]!, values)).toBeLessThan(tolerance);
}

/** Largest difference over largest value. */
export function relativeDifference(a: Float32Array, b: Float32Array): number {
  let difference = 0;
  let largest = 1e-30;
  a.forEach((value, i) => {
    difference = Math.max(difference, Math.abs(value - b[i]!));
    largest = Math.max(largest, Math.abs(value));
  });
  return difference / largest;
}

/**
 * Compares gradients with central differences of Σ output·cos(index) at a few places of each input. The step is small, so that
 * few values cross ReLU's kink, and large enough that the outputs' rounding (6e-8 each, summed in fp64) stays below the tolerance.
 */
export async function checkGradients(engine: EngineName, { shapes, run }: OpCase): Promise<void> {
  const inputs = randomInputs(shapes);
  const results = await evaluate(engine, inputs, run);
  const step = 2e-3;
  const loss = async () => {
    const [output] = await evaluate(engine, inputs, run);
    return output!.reduce((sum, value, i) => sum + value * Math.cos(i), 0);
  };
  for (const [index, { values }] of Object.values(inputs).entries()) {
    for (const share of [0.1, 0.34, 0.77]) {
      const at = Math.floor(values.length * share);
      const original = values[at]!;
      values[at] = original + step;
      const above = await loss();
      values[at] = original - step;
      const below = await loss();
      values[at] = original;
      const expected = (above - below) / (2 * step);
      expect(Math.abs(results[index + 1]![at]! - expected)).toBeLessThan(5e-3 * Math.max(1, Math.abs(expected)));
    }
  }
}
