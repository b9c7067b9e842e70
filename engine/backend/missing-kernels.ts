import {
  type BackendValues,
  type DataType,
  getKernel,
  getKernelsForBackend,
  type KernelFunc,
  MathBackendCPU,
  registerKernel,
  type TensorInfo,
} from '../tf.ts';

/** The two members of a tfjs backend through which values come and go. */
export interface HostAccess {
  readSync(dataId: object): BackendValues;
  write(values: BackendValues, shape: number[], dtype: DataType): object;
}

type Inputs = Readonly<Record<string, TensorInfo | readonly TensorInfo[] | undefined>>;

const calls = new Map<string, number>();

/** How often each borrowed kernel ran since the thread began. */
export function borrowedCalls(): ReadonlyMap<string, number> {
  return calls;
}

/**
 * Gives a backend the JavaScript kernels for whatever it has none: they run on copies of the inputs, and their results are copied back. Of a
 * gradient only those come into play that tfjs's other backends never needed for training.
 *
 * @returns the names of the kernels that were missing, sorted
 */
export function borrowMissingKernels(backendName: string, backend: HostAccess): string[] {
  const present = new Set(getKernelsForBackend(backendName).map(({ kernelName }) => kernelName));
  const missing = getKernelsForBackend('cpu').filter(({ kernelName }) => !present.has(kernelName));
  for (const { kernelName, kernelFunc } of missing) {
    registerKernel({ kernelName, backendName, kernelFunc: borrowed(kernelName, kernelFunc, backend) });
  }
  return missing.map(({ kernelName }) => kernelName).sort();
}

function borrowed(name: string, kernel: KernelFunc, backend: HostAccess): KernelFunc {
  return ({ inputs, attrs }) => {
    calls.set(name, (calls.get(name) ?? 0) + 1);
    const cpu = cpuBackend();
    const made = new Set<object>();
    const toCpu = (tensor: TensorInfo): TensorInfo => {
      const { shape, dtype } = tensor;
      const dataId = cpu.write(backend.readSync(tensor.dataId), shape, dtype);
      made.add(dataId);
      return { dataId, shape, dtype };
    };
    const copies = Object.entries(inputs as Inputs).flatMap(([key, value]): [string, unknown][] => {
      if (value === undefined || value === null) return [];
      return [[key, Array.isArray(value) ? value.map(toCpu) : toCpu(value as TensorInfo)]];
    });
    try {
      const copied = Array.isArray(inputs) ? copies.map(([, copy]) => copy) : Object.fromEntries(copies);
      const result = kernel({ inputs: copied as never, attrs: attrs as never, backend: cpu });
      const results = (Array.isArray(result) ? result : [result]) as TensorInfo[];
      for (const { dataId } of results) made.add(dataId);
      const back = results.map(({ dataId, shape, dtype }) => {
        return { dataId: backend.write(cpu.readSync(dataId) as BackendValues, shape, dtype), shape, dtype };
      });
      return Array.isArray(result) ? back : back[0]!;
    } finally {
      for (const dataId of made) cpu.disposeData(dataId, true);
    }
  };
}

let cpu: MathBackendCPU | undefined;

function cpuBackend(): MathBackendCPU {
  if (cpu === undefined) {
    cpu = new MathBackendCPU();
    // Its first write advertises another package.
    (cpu as unknown as { firstUse: boolean }).firstUse = false;
  }
  return cpu;
}

/** Kernels that a backend would have to borrow; nothing is registered. */
export function missingKernels(backendName: string): string[] {
  return getKernelsForBackend('cpu')
    .map(({ kernelName }) => kernelName)
    .filter((kernelName) => getKernel(kernelName, backendName) === undefined)
    .sort();
}
