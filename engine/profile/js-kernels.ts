import { getKernelsForBackend, type KernelFunc, registerKernel, type TensorInfo, unregisterKernel } from '../tf.ts';
import type { KernelEvent, TensorShape } from './record.ts';
import type { Recorder } from './recorder.ts';

/** Bytes of an element by tfjs's dtype. */
const ELEMENT_BYTES: Readonly<Record<string, number>> = { float32: 4, int32: 4, bool: 1, complex64: 8 };

/**
 * Times every kernel of a tfjs backend whose kernels run in JavaScript (or call out of it), by wrapping them in the registry.
 * @returns what puts the registry back
 */
export function recordTfjsKernels(backendName: string, recorder: Recorder): () => void {
  const kernels = getKernelsForBackend(backendName);
  const replace = (wrap: (name: string, kernel: KernelFunc) => KernelFunc): void => {
    for (const config of kernels) {
      // Registered anew, not over: tfjs warns about the latter.
      unregisterKernel(config.kernelName, backendName);
      registerKernel({ ...config, kernelFunc: wrap(config.kernelName, config.kernelFunc) });
    }
  };
  replace(
    (name, kernel) => (params) =>
      recorder.kernel(
        () => kernel(params),
        (result) => describe(name, params, result),
      ),
  );
  return () => replace((_name, kernel) => kernel);
}

function describe(
  name: string,
  { inputs, attrs }: Parameters<KernelFunc>[0],
  result: ReturnType<KernelFunc>,
): Omit<KernelEvent, 'startedNs' | 'endedNs'> {
  const given = Object.values(inputs).filter((input) => input !== undefined && input !== null) as TensorInfo[];
  const made = (Array.isArray(result) ? result : [result]) as TensorInfo[];
  const ids = new Set(given.map(({ dataId }) => dataId));
  const flags = [attrs?.['transposeA'], attrs?.['transposeB']].filter((flag) => typeof flag === 'boolean');
  return {
    name,
    inputs: given.map(shapeOf),
    outputs: made.filter(({ dataId }) => !ids.has(dataId)).map(shapeOf),
    aliases: made.filter(({ dataId }) => ids.has(dataId)).map(shapeOf),
    flags,
    hostBytes: 0,
  };
}

function shapeOf({ dtype, shape }: TensorInfo): TensorShape {
  return { type: dtype, elementBytes: ELEMENT_BYTES[dtype] ?? 0, shape };
}
