import { assert, CoveyError } from '../common/errors.ts';
import type { Variable } from '../engine/index.ts';
import { tf } from '../engine/index.ts';
import { initialValues } from './clip/initial-values.ts';
import { elementCount, type ParameterSpec } from './clip/parameter-shapes.ts';
import type { HostTensor } from './formats/safetensors.ts';

export interface NamedVariable {
  /** State-dict key. */
  readonly name: string;
  readonly variable: Variable;
  readonly shape: readonly number[];
}

/** What models have in common that are trained together, by name. */
export type SharedVariables = ReadonlyMap<string, NamedVariable>;

/** Disposes what is a model's own. */
export function disposeOwn(variables: readonly NamedVariable[], shared?: SharedVariables): void {
  for (const { name, variable } of variables) if (!shared?.has(name)) variable.dispose();
}

/** Makes variables from their specs; the caller owns them. `scope` must be unique in the thread: tfjs keeps one registry of variables. */
export function makeVariables(
  specs: readonly ParameterSpec[],
  options: {
    readonly seed: number;
    readonly init: 'random' | 'zeros';
    readonly trainable: boolean;
    readonly scope: string;
    /** Variables of another model by name: they are taken as they are, and stay that model's to dispose. Default none. */
    readonly shared?: SharedVariables | undefined;
  },
): NamedVariable[] {
  const { seed, init, trainable, scope, shared } = options;
  return specs.map((spec) => {
    const { name, shape, initial } = spec;
    const existing = shared?.get(name);
    if (existing !== undefined) {
      assert(`${existing.shape}` === `${shape}`, 'a shared variable has one shape', { name, shape });
      return existing;
    }
    const drawn = init === 'random' || initial.kind === 'constant';
    const values = drawn ? initialValues(spec, seed) : new Float32Array(elementCount(shape));
    const first = tf.tensor(values, [...shape], 'float32');
    const variable = tf.variable(first, trainable, `${scope}/${name}`);
    first.dispose();
    return { name, variable, shape };
  });
}

/**
 * Replaces every value. Nothing is changed unless each is there in its right size and nothing else is.
 * @throws CoveyError INVALID_ARGUMENT naming each problem
 */
export function assignAll(variables: readonly NamedVariable[], source: ReadonlyMap<string, Float32Array>): void {
  const problems: string[] = [];
  const known = new Set(variables.map(({ name }) => name));
  for (const { name, shape } of variables) {
    const found = source.get(name);
    if (found === undefined) problems.push(`${name} is missing`);
    else if (found.length !== elementCount(shape)) {
      problems.push(`${name} has ${found.length} values, not the ${elementCount(shape)} of [${shape}]`);
    }
  }
  for (const name of source.keys()) if (!known.has(name)) problems.push(`${name} is not one of the model's`);
  if (problems.length > 0) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot set the weights: they are of another model: ${problems.join('; ')}`,
      { fields: { problems } },
    );
  }
  tf.tidy(() => {
    for (const { name, variable, shape } of variables) {
      // A copy: on some backends a tensor shares the array it is made from, and the caller may reuse it.
      variable.assign(tf.tensor(new Float32Array(source.get(name)!), [...shape], 'float32'));
    }
  });
}

/** The same with their shapes, as weights files take them. */
export function readTensors(variables: readonly NamedVariable[]): Map<string, HostTensor> {
  const values = readAll(variables);
  return new Map(variables.map(({ name, shape }) => [name, { shape, values: values.get(name)! }]));
}

/** Host copies by name, in order. */
export function readAll(variables: readonly NamedVariable[]): Map<string, Float32Array> {
  return new Map(variables.map(({ name, variable }) => [name, new Float32Array(variable.dataSync<'float32'>())]));
}
