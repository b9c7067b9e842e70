import { getKernel, type KernelFunc, registerKernel } from '../../tf.ts';
import { TORCH_BACKEND } from '../active.ts';
import { fallbackKernel, registerFallbacks } from '../fallback.ts';
import type { TorchBackend } from '../torch-backend.ts';
import { blockKernels } from './blocks.ts';
import { complexKernels } from './complex.ts';
import { convKernels } from './conv.ts';
import { elementwiseKernels } from './elementwise.ts';
import { gatherKernels } from './gather.ts';
import { generateKernels } from './generate.ts';
import { registerIndexFlag } from './indices.ts';
import { type Attributes, type Kernel, type KernelInputs, KernelScope, type KernelTable } from './kernel.ts';
import { matmulKernels } from './matmul.ts';
import { orderKernels } from './order.ts';
import { poolKernels } from './pool.ts';
import { reduceKernels } from './reduce.ts';
import { resizeKernels } from './resize.ts';
import { responseNormKernels } from './response-norm.ts';
import { scatterKernels } from './scatter.ts';
import { shapeKernels } from './shape.ts';

/** Our kernels by family. What tfjs names and no family has runs in JavaScript (docs/engine-kernels.md). */
export const KERNEL_FAMILIES: Readonly<Record<string, KernelTable>> = {
  elementwise: elementwiseKernels,
  reduce: reduceKernels,
  shape: shapeKernels,
  matmul: matmulKernels,
  conv: convKernels,
  pool: poolKernels,
  gather: gatherKernels,
  generate: generateKernels,
  scatter: scatterKernels,
  order: orderKernels,
  blocks: blockKernels,
  resize: resizeKernels,
  complex: complexKernels,
  'response norm': responseNormKernels,
};

/** Registers our kernels, and tfjs's JavaScript ones on copies for all names we do not have. Once per thread. */
export function registerTorchKernels(backend: TorchBackend): void {
  registerIndexFlag();
  const native = new Map<string, Kernel>(Object.values(KERNEL_FAMILIES).flatMap((table) => Object.entries(table)));
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
  registerFallbacks(TORCH_BACKEND, backend);
}

function cpuKernel(kernelName: string, backend: TorchBackend): KernelFunc | undefined {
  const config = getKernel(kernelName, 'cpu');
  return config ? fallbackKernel(kernelName, config.kernelFunc, backend) : undefined;
}

function hasStrings(inputs: object): boolean {
  for (const tensor of Object.values(inputs)) if (tensor?.dtype === 'string') return true;
  return false;
}
