import { TORCH_BACKEND } from './backend/active.ts';
import { registerTorchKernels } from './backend/kernels/register.ts';
import { type TorchBackend, torchBackend } from './backend/torch-backend.ts';
import { chooseDevice, countGpus, type Device, type DeviceChoice } from './devices.ts';
import type { Engine, EngineMemory } from './engine.ts';
import type { UpdateArguments } from './native/load.ts';
import type { GradientNorms, LambMoments, LambNorms, UpdateRule, UpdateTarget } from './optim/update-rule.ts';
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

  applyRule(rule: UpdateRule, target: UpdateTarget): void {
    const { addon } = this.#backend;
    const common = this.#updateArguments(target);
    const { weightDecays, rates } = rule;
    switch (rule.kind) {
      case 'adamW':
        addon.adamW(...common, weightDecays, rates, rule.beta1, rule.beta2, rule.eps, rule.step);
        break;
      case 'momentum':
        addon.momentum(...common, weightDecays, rule.trusts, rates, rule.momentum, rule.nesterov);
        break;
      case 'lion':
        addon.lion(...common, weightDecays, rates, rule.beta1, rule.beta2);
        break;
      case 'lamb':
        addon.lambStep(...common, ...lambArguments(rule), rates);
    }
    for (const parameter of target.parameters) this.#backend.updated(parameter);
  }

  gradientNorms(weightDecays: readonly number[], target: UpdateTarget): GradientNorms[] {
    const out = new Float64Array(3 * target.parameters.length);
    this.#backend.addon.gradientNorms(...this.#updateArguments(target), weightDecays, out);
    return target.parameters.map((_, i) => ({
      parameter: out[3 * i]!,
      gradient: out[3 * i + 1]!,
      decayed: out[3 * i + 2]!,
    }));
  }

  lambMoments(constants: LambMoments, target: UpdateTarget): LambNorms[] {
    const out = new Float64Array(2 * target.parameters.length);
    this.#backend.addon.lambMoments(...this.#updateArguments(target), ...lambArguments(constants), out);
    return target.parameters.map((_, i) => ({ parameter: out[2 * i]!, update: out[2 * i + 1]! }));
  }

  averageInto(averages: readonly Tensor[], values: readonly Tensor[], weight: number): void {
    this.#backend.addon.averageInto(this.#handles(averages), this.#handles(values), weight);
    for (const average of averages) this.#backend.written(average);
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

  #updateArguments({ parameters, slots, gradient, gradientScale, offsets }: UpdateTarget): UpdateArguments {
    const [first, second] = slots;
    return [
      this.#handles(parameters),
      first ? this.#handles(first) : null,
      second ? this.#handles(second) : null,
      gradient instanceof Float32Array ? gradient : this.#handles(gradient),
      gradientScale,
      offsets,
      parameters.map((parameter) => this.#backend.recordOf(parameter).half ?? null),
    ];
  }
}

function lambArguments({ weightDecays, beta1, beta2, eps, step, biasCorrection }: LambMoments) {
  return [weightDecays, beta1, beta2, eps, step, biasCorrection] as const;
}
