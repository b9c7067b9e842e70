import { CoveyError } from '../common/errors.ts';

/** How the engines say that memory is short: our allocator, libtorch's on the CPU and on a GPU, cuBLAS, TensorFlow, C++, JavaScript. */
const MESSAGES = [
  /out of memory/i,
  /can't allocate memory/i,
  /CUBLAS_STATUS_ALLOC_FAILED/,
  /OOM when allocating/,
  /bad_alloc/,
  /array buffer allocation failed/i,
];

/** A failed allocation as RESOURCE_EXHAUSTED; anything else as `CoveyError.from` has it. */
export function allocationError(thrown: unknown): CoveyError {
  const error = CoveyError.from(thrown);
  if (error.code !== 'INTERNAL' || !MESSAGES.some((message) => message.test(error.message))) return error;
  const reason = error.message.split('\n')[0];
  return new CoveyError(
    'RESOURCE_EXHAUSTED',
    `Cannot hold the step in memory: ${reason}; see train.gradCache, train.microBatch and train.recompute (docs/large-batches.md)`,
    { cause: thrown, fields: { reason } },
  );
}
