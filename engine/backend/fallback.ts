import { type BackendValues, type KernelFunc, MathBackendCPU, type TensorInfo } from '../tf.ts';
import type { TorchBackend } from './torch-backend.ts';

const calls = new Map<string, number>();

/** How often each kernel ran on copies in JavaScript since the thread began: a hot path in here wants a kernel of its own. */
export function fallbackCalls(): ReadonlyMap<string, number> {
  return calls;
}

/** Runs tfjs's JavaScript kernel on copies of the inputs and brings the results back. */
export function fallbackKernel(name: string, kernel: KernelFunc, torch: TorchBackend): KernelFunc {
  return ({ inputs, attrs }) => {
    calls.set(name, (calls.get(name) ?? 0) + 1);
    const cpu = cpuBackend();
    const made: object[] = [];
    const toCpu = (tensor: TensorInfo): TensorInfo => {
      const values = torch.readSync(torch.recordOf(tensor));
      const dataId = cpu.write(values, tensor.shape, tensor.dtype);
      made.push(dataId);
      return { dataId, shape: tensor.shape, dtype: tensor.dtype };
    };
    const toTorch = (tensor: TensorInfo): TensorInfo => {
      const values = cpu.readSync(tensor.dataId) as BackendValues;
      return { dataId: torch.write(values, tensor.shape, tensor.dtype), shape: tensor.shape, dtype: tensor.dtype };
    };
    const copies = Array.isArray(inputs)
      ? inputs.map(toCpu)
      : Object.fromEntries(Object.entries(inputs).flatMap(([key, x]) => (x ? [[key, toCpu(x as TensorInfo)]] : [])));
    try {
      const result = kernel({ inputs: copies as never, attrs: attrs as never, backend: cpu });
      const results = (Array.isArray(result) ? result : [result]) as TensorInfo[];
      const back = results.map(toTorch);
      made.push(...results.map(({ dataId }) => dataId).filter((dataId) => !made.includes(dataId)));
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
