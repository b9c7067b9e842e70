import { CoveyError } from '../common/errors.ts';
import { CpuEngine, useCpuBackend } from './cpu-engine.ts';
import type { Engine } from './engine.ts';
import { TorchEngine, useTorchBackend } from './torch-engine.ts';

export interface EngineOptions {
  /** `auto`: `torch` where the addon is built and loads, else `cpu`. */
  readonly engine: 'auto' | 'torch' | 'cpu';
  /** Threads of this thread's numeric kernels; `cpu` always uses one. */
  readonly threads: number;
}

/**
 * Makes an engine the current tfjs backend of this thread. One per thread: loading another one switches backends, and tensors of the
 * former must not be used any more. The engine's `close` frees nothing that tensors still hold.
 *
 * @throws UNSUPPORTED where `torch` is asked for and its addon is absent or does not load; the message says what to install.
 */
export async function loadEngine(options: EngineOptions): Promise<Engine> {
  if (!Number.isInteger(options.threads) || options.threads < 1) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot load an engine: threads must be a whole number ≥ 1: value is ${options.threads}`,
    );
  }
  if (options.engine !== 'cpu') {
    try {
      return new TorchEngine(await useTorchBackend(), options.threads);
    } catch (thrown) {
      if (options.engine === 'torch' || !CoveyError.is(thrown, 'UNSUPPORTED')) throw thrown;
    }
  }
  await useCpuBackend();
  return new CpuEngine();
}
