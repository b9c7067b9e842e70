import { RandomStream } from '../../common/random.ts';
import { elementCount, type ParameterSpec } from '../parameter-spec.ts';

/**
 * The first values of a parameter: a pure function of (seed, name), so every process starts from the same weights without
 * sending them, and adding a parameter does not move the others.
 */
export function initialValues({ name, shape, initial }: ParameterSpec, seed: number): Float32Array {
  const values = new Float32Array(elementCount(shape));
  if (initial.kind === 'constant') return values.fill(initial.value);
  if (initial.kind === 'fixed') return initial.values();
  const stream = new RandomStream(seed, 'init', name);
  if (initial.kind === 'normal') {
    for (let i = 0; i < values.length; i++) values[i] = stream.normal(0, initial.std);
  } else {
    for (let i = 0; i < values.length; i++) values[i] = stream.uniform(-initial.bound, initial.bound);
  }
  return values;
}
