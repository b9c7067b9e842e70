import { CoveyError } from '../common/errors.ts';
import { TORCH_BACKEND } from './backend/active.ts';
import { registerTorchKernels } from './backend/kernels/register.ts';
import { type TorchBackend, torchBackend } from './backend/torch-backend.ts';
import { chooseDevice, countGpus, type Device, type DeviceChoice } from './devices.ts';
import type { AdamWUpdate, Engine, EngineMemory } from './engine.ts';
import { findBackend, memory, registerBackend, setBackend, type Tensor } from './tf.ts';

const CPU: Device = { kind: 'cpu', index: 0 };

/** Registers our tfjs backend on first use in this thread and makes it current. UNSUPPORTED where the addon does not load. */
export async function useTorchBackend(): Promise<TorchBackend> {
  const backend = torchBackend();
  if (!findBackend(TORCH_BACKEND)) {
    registerTorchKernels(backend);
    registerBackend(TORCH_BACKEND, () => backend, 10);
  }
  await setBackend(TORCH_BACKEND);
  return backend;
}

export interface TorchOptions {
  readonly threads: number;
  readonly device: DeviceChoice;
  /** Number of this worker on its machine. */
  readonly index: number;
  readonly tf32: boolean;
  readonly deterministic: boolean;
}

/** libtorch through the addon, on the CPU or a GPU. */
export class TorchEngine implements Engine {
  readonly name = 'torch';
  readonly description: string;
  readonly threads: number;
  readonly device: string;
  readonly #backend: TorchBackend;

  /** @throws UNSUPPORTED where the device is not there */
  constructor(backend: TorchBackend, { threads, device, index, tf32, deterministic }: TorchOptions) {
    const { addon } = backend;
    this.#backend = backend;
    this.threads = addon.setThreads(threads);
    const chosen = device === 'cpu' ? CPU : chooseDevice(device, countGpus(addon), index);
    if (chosen.kind === 'cuda') addon.setDeviceMath(tf32, deterministic);
    addon.setDevice(chosen.kind, chosen.index);
    this.device = addon.device();
    const where =
      chosen.kind === 'cpu' ? '' : `, ${this.device}${tf32 ? ', TF32' : ''}${deterministic ? ', deterministic' : ''}`;
    this.description = `${addon.describe()}${where}, ${this.threads} thread${this.threads === 1 ? '' : 's'}`;
  }

  readInto(tensor: Tensor, out: Float32Array): void {
    this.#backend.addon.readInto(this.#backend.handleOf(tensor), out);
  }

  addInto(tensor: Tensor, out: Float32Array): void {
    this.#backend.addon.addInto(this.#backend.handleOf(tensor), out);
  }

  writeFrom(tensor: Tensor, values: Float32Array): void {
    this.#backend.addon.writeFrom(this.#backend.handleOf(tensor), values);
    this.#backend.written(tensor);
  }

  sumOfSquares(values: Float32Array): number {
    return this.#backend.addon.sumOfSquares(values);
  }

  addVectors(target: Float32Array, source: Float32Array): void {
    this.#backend.addon.addVectors(target, source);
  }

  digest(tensors: readonly Tensor[]): string {
    return this.#backend.addon.digest(this.#handles(tensors));
  }

  adamW(update: AdamWUpdate): void {
    const { parameters } = update;
    if (update.lrScales.length !== parameters.length) {
      throw new CoveyError('INVALID_ARGUMENT', 'Cannot update: one lr scale per parameter is needed');
    }
    this.#backend.addon.adamW(
      this.#handles(parameters),
      this.#handles(update.firstMoments),
      this.#handles(update.secondMoments),
      update.gradient instanceof Float32Array ? update.gradient : this.#handles(update.gradient),
      update.gradientScale,
      update.weightDecays,
      update.lrScales,
      update.lr,
      update.beta1,
      update.beta2,
      update.eps,
      update.step,
      parameters.map((parameter) => this.#backend.recordOf(parameter).half ?? null),
    );
    for (const parameter of parameters) this.#backend.updated(parameter);
  }

  memory(): EngineMemory {
    const { numTensors, numBytes } = memory();
    const [liveBytes = 0, peakBytes = 0, reservedBytes = 0] = this.#backend.addon.memoryStats();
    return { tensors: numTensors, bytes: numBytes, liveBytes, peakBytes, reservedBytes };
  }

  resetPeakMemory(): void {
    this.#backend.addon.resetPeakMemory();
  }

  close(): void {
    // Storage goes with its tensors; the addon's context goes with the thread.
  }

  #handles(tensors: readonly Tensor[]): number[] {
    return tensors.map((tensor) => this.#backend.handleOf(tensor));
  }
}
