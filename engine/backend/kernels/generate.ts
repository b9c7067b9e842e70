import { util } from '../../tf.ts';
import type { Kernel, KernelTable } from './kernel.ts';

// Made on the host from a few numbers, in the rounding steps that tfjs prescribes (each value from the one before), and uploaded once.

const linSpace: Kernel = (scope, _inputs, attrs) => {
  const { start, stop, num } = attrs;
  const step = (stop - start) / (num - 1);
  const values = new Float32Array(num);
  values[0] = start;
  for (let i = 1; i < num; i++) values[i] = values[i - 1]! + step;
  return scope.out(scope.upload(values, [num]), 'float32', [num]);
};

const range: Kernel = (scope, _inputs, attrs) => {
  const { start, stop, dtype } = attrs;
  // A step of 1 is what tf.range takes when none is given: it runs downwards where it must.
  const step = stop < start && attrs['step'] === 1 ? -1 : attrs['step'];
  const empty = start === stop || (start < stop && step < 0) || (stop < start && step > 1);
  const count = empty ? 0 : Math.abs(Math.ceil((stop - start) / step));
  const values = util.makeZerosTypedArray(count, dtype) as Float32Array | Int32Array;
  if (count > 0) values[0] = start;
  for (let i = 1; i < count; i++) values[i] = values[i - 1]! + step;
  return scope.out(scope.upload(values, [count]), dtype, [count]);
};

/** Made from attributes alone. */
export const generateKernels: KernelTable = { LinSpace: linSpace, Range: range };
