import { CoveyError } from '../common/errors.ts';
import type { EngineName } from './capabilities.ts';
import { CpuEngine, useCpuBackend } from './cpu-engine.ts';
import { startTensorDebugger, type TensorDebugger } from './debug/tensor-debugger.ts';
import type { Engine } from './engine.ts';
import { TensorflowEngine, useTensorflowBackend } from './tensorflow-engine.ts';
import { TorchEngine, useTorchBackend } from './torch-engine.ts';
import { useWasmBackend, WasmEngine } from './wasm-engine.ts';

export interface EngineOptions {
  /** `auto`: `torch` where the addon is built and loads, else `cpu`. The others are taken only where they are named. */
  readonly engine: 'auto' | EngineName;
  /** Threads of this thread's numeric kernels; `wasm` and `cpu` always use one. */
  readonly threads: number;
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
  if (engine !== 'auto') return loadNamed(engine, threads, tensors);
  try {
    return await loadNamed('torch', threads, tensors);
  } catch (thrown) {
    if (!CoveyError.is(thrown, 'UNSUPPORTED')) throw thrown;
    return loadNamed('cpu', threads, tensors);
  }
}

async function loadNamed(engine: EngineName, threads: number, tensors: TensorDebugger | undefined): Promise<Engine> {
  switch (engine) {
    case 'torch': {
      const backend = await useTorchBackend();
      if (tensors) backend.watchHandles(tensors.handles);
      return new TorchEngine(backend, threads);
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
