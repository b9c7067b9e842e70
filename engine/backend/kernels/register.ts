import { getKernelsForBackend, type KernelFunc, registerKernel } from '../../tf.ts';
import { TORCH_BACKEND } from '../active.ts';
import { fallbackKernel } from '../fallback.ts';
import type { TorchBackend } from '../torch-backend.ts';
import { elementwiseKernels } from './elementwise.ts';
import { gatherKernels } from './gather.ts';
import { type Attributes, type Kernel, type KernelInputs, KernelScope, type KernelTable } from './kernel.ts';
import { matmulKernels } from './matmul.ts';
import { reduceKernels } from './reduce.ts';
import { shapeKernels } from './shape.ts';

/** Every family; convolution and pooling will be two more. */
const TABLES: readonly KernelTable[] = [elementwiseKernels, reduceKernels, shapeKernels, matmulKernels, gatherKernels];

/** Registers our kernels, and tfjs's JavaScript ones on copies for all names we do not have. Once per thread. */
export function registerTorchKernels(backend: TorchBackend): void {
  const native = new Map<string, Kernel>(TABLES.flatMap((table) => Object.entries(table)));
  for (const [kernelName, kernel] of native) {
    const fallback = cpuKernel(kernelName, backend);
    const kernelFunc: KernelFunc = (params) => {
      // Strings have no storage in libtorch.
      if (fallback !== undefined && hasStrings(params.inputs)) return fallback(params);
      return new KernelScope(backend).run(
        kernel,
        params.inputs as unknown as KernelInputs,
        (params.attrs ?? {}) as Attributes,
      );
    };
    registerKernel({ kernelName, backendName: TORCH_BACKEND, kernelFunc });
  }
  for (const { kernelName, kernelFunc } of getKernelsForBackend('cpu')) {
    if (native.has(kernelName)) continue;
    registerKernel({
      kernelName,
      backendName: TORCH_BACKEND,
      kernelFunc: fallbackKernel(kernelName, kernelFunc, backend),
    });
  }
}

function cpuKernel(kernelName: string, backend: TorchBackend): KernelFunc | undefined {
  const config = getKernelsForBackend('cpu').find((candidate) => candidate.kernelName === kernelName);
  return config === undefined ? undefined : fallbackKernel(kernelName, config.kernelFunc, backend);
}

function hasStrings(inputs: object): boolean {
  for (const tensor of Object.values(inputs)) if (tensor?.dtype === 'string') return true;
  return false;
}
