import { CoveyError } from '../common/errors.ts';
import type { EngineName } from './capabilities.ts';
import { CpuEngine, useCpuBackend } from './cpu-engine.ts';
import { startTensorDebugger, type TensorDebugger } from './debug/tensor-debugger.ts';
import type { DeviceChoice } from './devices.ts';
import type { Engine } from './engine.ts';
import { TensorflowEngine, useTensorflowBackend } from './tensorflow-engine.ts';
import { TorchEngine, useTorchBackend } from './torch-engine.ts';
import { useWasmBackend, WasmEngine } from './wasm-engine.ts';

export interface EngineOptions {
  /** `auto`: `torch` where the addon is built and loads, else `wasm`. The others are taken only where they are named. */
  readonly engine: 'auto' | EngineName;
  /** Threads of this thread's numeric kernels; `wasm` and `cpu` always use one. */
  readonly threads: number;
  /**
   * Of the engine `torch`: `auto` (a GPU where there is one), `cpu`, `cuda`, `cuda:1`. The engine `auto` falls back to `wasm` only where no GPU is
   * named. Default: COVEY_DEVICE, else `cpu`.
   */
  readonly device?: DeviceChoice;
  /** Number of this worker on its machine: takes GPU number `index` modulo their count where none is named. Default 0. */
  readonly index?: number;
  /** fp32 products on GPUs with TF32 operands (10 bits of mantissa). For the whole process. Default false. */
  readonly tf32?: boolean;
  /** On GPUs only kernels whose sums have a fixed order; those that have none are refused. For the whole process. Default true. */
  readonly deterministic?: boolean;
  /**
   * Remember where each tensor is made, so that `tensorDebugger()` names those that leak. Slow; from then on for this thread's life.
   * Default: whether COVEY_DEBUG_TENSORS is 1.
   */
  readonly debugTensors?: boolean;
}

/**
 * Makes an engine the current tfjs backend of this thread. One per thread: loading another one switches backends, and tensors of the
 * former must not be used any more. The engine's `close` frees nothing that tensors still hold.
 *
 * @throws UNSUPPORTED where an engine is asked for that is absent or does not load; the message says what to install.
 */
export async function loadEngine(options: EngineOptions): Promise<Engine> {
  const { engine, threads } = options;
  if (!Number.isInteger(threads) || threads < 1) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot load an engine: threads must be a whole number ≥ 1: value is ${threads}`,
    );
  }
  const debug = options.debugTensors ?? process.env['COVEY_DEBUG_TENSORS'] === '1';
  const tensors = debug ? startTensorDebugger() : undefined;
  const device = options.device ?? process.env['COVEY_DEVICE'] ?? 'cpu';
  if (engine !== 'auto') return loadNamed(engine, { ...options, device }, tensors);
  try {
    return await loadNamed('torch', { ...options, device }, tensors);
  } catch (thrown) {
    if (!CoveyError.is(thrown, 'UNSUPPORTED') || device.startsWith('cuda')) throw thrown;
    return loadNamed('wasm', { ...options, device: 'cpu' }, tensors);
  }
}

async function loadNamed(
  engine: EngineName,
  options: EngineOptions & { readonly device: DeviceChoice },
  tensors: TensorDebugger | undefined,
): Promise<Engine> {
  const { threads, device, index = 0, tf32 = false, deterministic = true } = options;
  if (engine !== 'torch' && device.startsWith('cuda')) {
    throw new CoveyError(
      'UNSUPPORTED',
      `Cannot use device ${device}: the engine ${engine} computes on the CPU; use the engine torch`,
    );
  }
  switch (engine) {
    case 'torch': {
      const backend = await useTorchBackend();
      if (tensors) backend.watchHandles(tensors.handles);
      return new TorchEngine(backend, { threads, device, index, tf32, deterministic });
    }
    case 'tensorflow':
      await useTensorflowBackend(threads);
      return new TensorflowEngine(threads);
    case 'wasm':
      await useWasmBackend();
      return new WasmEngine();
    case 'cpu':
      await useCpuBackend();
      return new CpuEngine();
  }
}
