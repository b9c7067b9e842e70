import {
  type BackendValues,
  type DataType,
  getKernel,
  getKernelsForBackend,
  type KernelFunc,
  MathBackendCPU,
  registerKernel,
  type TensorInfo,
  util,
} from '../tf.ts';
import { countFallback } from './fallback-counts.ts';
import { quiet } from './quiet-cpu.ts';

/**
 * The two members of a tfjs backend through which values come and go. Complex ones are interleaved; data that another backend holds moves here when
 * it is read.
 */
export interface HostAccess {
  readSync(dataId: object): BackendValues;
  write(values: BackendValues, shape: number[], dtype: DataType): object;
}

/** Tensors by name; ragged ops have lists of them. */
type Inputs = Record<string, TensorInfo | readonly TensorInfo[] | undefined> | readonly TensorInfo[];

/** Registers tfjs's JavaScript kernels, on copies, under every name for which the backend has none. Once per backend and thread. */
export function registerFallbacks(backendName: string, backend: HostAccess): void {
  const present = new Set(getKernelsForBackend(backendName).map(({ kernelName }) => kernelName));
  for (const { kernelName, kernelFunc } of getKernelsForBackend('cpu')) {
    if (present.has(kernelName)) continue;
    registerKernel({ kernelName, backendName, kernelFunc: fallbackKernel(kernelName, kernelFunc, backend) });
  }
}

/** Runs tfjs's JavaScript kernel on copies of the inputs and brings the results back. Each call is counted. */
export function fallbackKernel(name: string, kernel: KernelFunc, backend: HostAccess): KernelFunc {
  return ({ inputs, attrs }) => {
    const startedAt = performance.now();
    const cpu = cpuBackend();
    const made = new Set<object>();
    try {
      const toCpu = (tensor: TensorInfo) => copyToCpu(tensor, backend, cpu, made);
      const result = kernel({ inputs: mapped(inputs as Inputs, toCpu) as never, attrs: attrs as never, backend: cpu });
      const results = (Array.isArray(result) ? result : [result]) as TensorInfo[];
      for (const { dataId } of results) made.add(dataId);
      const back = results.map(({ dataId, shape, dtype }) => {
        return { dataId: backend.write(cpu.readSync(dataId) as BackendValues, shape, dtype), shape, dtype };
      });
      return Array.isArray(result) ? back : back[0]!;
    } finally {
      for (const dataId of made) cpu.disposeData(dataId, true);
      countFallback(name, performance.now() - startedAt);
    }
  };
}

function mapped(inputs: Inputs, copy: (tensor: TensorInfo) => TensorInfo): unknown {
  if (Array.isArray(inputs)) return inputs.map(copy);
  return Object.fromEntries(
    Object.entries(inputs as Exclude<Inputs, readonly TensorInfo[]>).flatMap(([key, value]) => {
      if (!value) return [];
      return [[key, Array.isArray(value) ? value.map(copy) : copy(value as TensorInfo)]];
    }),
  );
}

function copyToCpu(tensor: TensorInfo, from: HostAccess, cpu: MathBackendCPU, made: Set<object>): TensorInfo {
  const { shape, dtype } = tensor;
  const values = from.readSync(tensor.dataId);
  const dataId =
    dtype === 'complex64' ? writeComplex(values as Float32Array, shape, cpu) : cpu.write(values, shape, dtype);
  made.add(dataId);
  // Some kernels read the rank, which tensors have beyond what TensorInfo promises.
  return { dataId, shape, dtype, rank: shape.length, size: util.sizeFromShape(shape) } as TensorInfo;
}

/** tfjs's JavaScript kernels keep the parts apart, the other backends interleave them. */
function writeComplex(values: Float32Array, shape: number[], cpu: MathBackendCPU): object {
  const [real, imag] = [0, 1].map((offset) =>
    cpu.makeTensorInfo(
      shape,
      'float32',
      values.filter((_, at) => at % 2 === offset),
    ),
  ) as [TensorInfo, TensorInfo];
  const complex = getKernel('Complex', 'cpu').kernelFunc({ inputs: { real, imag }, attrs: {}, backend: cpu });
  cpu.disposeIntermediateTensorInfo(real);
  cpu.disposeIntermediateTensorInfo(imag);
  return (complex as TensorInfo).dataId;
}

let cpu: MathBackendCPU | undefined;

function cpuBackend(): MathBackendCPU {
  cpu ??= quiet(new MathBackendCPU());
  return cpu;
}
