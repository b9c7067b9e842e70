import type { Handle } from '../../native/load.ts';
import { env } from '../../tf.ts';
import type { KernelScope } from './kernel.ts';

/**
 * tfjs flag. When set, indices are read back and checked before they are used: one host round trip an op. Off by default: on the CPU ATen checks each index
 * as it uses it, at no cost; on a device that does not, an index out of range is the caller's mistake to find with this flag.
 */
export const CHECK_INDICES = 'TORCH_CHECK_INDICES';

export function registerIndexFlag(): void {
  env().registerFlag(CHECK_INDICES, () => false);
}

/** What tfjs says about the index at `position` (in the flat order of the index tensor), whose value is `value`. */
type Complaint = (value: number, position: number) => string;

/** Runs an ATen operator that addresses `count` places by `index`. Where it refuses, the error is tfjs's. */
export function indexed<R>(scope: KernelScope, index: Handle, count: number, complaint: Complaint, run: () => R): R {
  if (env().getBool(CHECK_INDICES)) check(scope, index, count, complaint);
  try {
    return run();
  } catch (thrown) {
    check(scope, index, count, complaint);
    throw thrown;
  }
}

function check(scope: KernelScope, index: Handle, count: number, complaint: Complaint): void {
  const values = scope.backend.addon.toTyped(index);
  values.forEach((value, position) => {
    if (value < 0 || value >= count) throw new RangeError(complaint(value, position));
  });
}

/** Rows of coordinates, [n, axes], as offsets into the flattened leading axes: Σ coordinate·stride. */
export function flatIndex(scope: KernelScope, coordinates: Handle, count: number, strides: readonly number[]): Handle {
  const rows = scope.call('reshape', scope.cast(coordinates, 'int32'), [count, strides.length]);
  const weighted = scope.call('mul.Tensor', rows, scope.upload(Int32Array.from(strides), [strides.length]));
  return scope.cast(scope.call('sum.dim_IntList', weighted, [-1], false), 'int32');
}
