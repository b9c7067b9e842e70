import { CoveyError } from '../common/errors.ts';
import type { AdamWUpdate, Engine } from './engine.ts';
import { digest, sumOfSquares } from './host-math.ts';
import { backend, type MathBackendCPU, memory, setBackend, type Tensor, version_core } from './tf.ts';

/** Makes tfjs's JavaScript kernels current, without their advertisement for another package. */
export async function useCpuBackend(): Promise<void> {
  await setBackend('cpu');
  (cpuBackend() as unknown as { firstUse: boolean }).firstUse = false;
}

function cpuBackend(): MathBackendCPU {
  return backend() as MathBackendCPU;
}

/** The storage of a tensor; not a copy. */
function storageOf(tensor: Tensor): Float32Array {
  const values = tensor.dataSync();
  if (!(values instanceof Float32Array)) {
    throw new CoveyError('INVALID_ARGUMENT', `Cannot use a tensor as floats: its type is ${tensor.dtype}`);
  }
  return values;
}

function checkLength(tensor: Tensor, values: Float32Array): void {
  if (tensor.size === values.length) return;
  throw new CoveyError(
    'INVALID_ARGUMENT',
    `Cannot copy: the tensor has ${tensor.size} elements, the array ${values.length}`,
  );
}

/** Pure JavaScript: slow, everywhere. Needs the `cpu` backend to be current. */
export class CpuEngine implements Engine {
  readonly name = 'cpu';
  readonly description = `tfjs ${version_core} JavaScript kernels`;
  readonly threads = 1;

  readInto(tensor: Tensor, out: Float32Array): void {
    checkLength(tensor, out);
    out.set(storageOf(tensor));
  }

  addInto(tensor: Tensor, out: Float32Array): void {
    checkLength(tensor, out);
    this.addVectors(out, storageOf(tensor));
  }

  writeFrom(tensor: Tensor, values: Float32Array): void {
    checkLength(tensor, values);
    this.#writable(tensor).set(values);
  }

  sumOfSquares(values: Float32Array): number {
    return sumOfSquares(values);
  }

  addVectors(target: Float32Array, source: Float32Array): void {
    if (target.length !== source.length) {
      throw new CoveyError(
        'INVALID_ARGUMENT',
        `Cannot add vectors: lengths differ: ${target.length} and ${source.length}`,
      );
    }
    for (let i = 0; i < target.length; i++) target[i]! += source[i]!;
  }

  digest(tensors: readonly Tensor[]): string {
    return digest(tensors.map(storageOf));
  }

  adamW(update: AdamWUpdate): void {
    const { beta1, beta2, eps, gradient, gradientScale, step } = update;
    const secondCorrection = 1 / Math.sqrt(1 - beta2 ** step);
    let offset = 0;
    update.parameters.forEach((tensor, index) => {
      const parameter = this.#writable(tensor);
      const first = this.#writable(update.firstMoments[index]!);
      const second = this.#writable(update.secondMoments[index]!);
      const rate = update.lr * update.lrScales[index]!;
      const decay = 1 - rate * update.weightDecays[index]!;
      const stepSize = rate / (1 - beta1 ** step);
      for (let i = 0; i < parameter.length; i++) {
        const g = gradient[offset + i]! * gradientScale;
        first[i] = beta1 * first[i]! + (1 - beta1) * g;
        second[i] = beta2 * second[i]! + (1 - beta2) * g * g;
        parameter[i] =
          parameter[i]! * decay - (stepSize * first[i]!) / (Math.sqrt(second[i]!) * secondCorrection + eps);
      }
      offset += parameter.length;
    });
    if (offset !== gradient.length) {
      throw new CoveyError(
        'INVALID_ARGUMENT',
        `Cannot update: the gradient has ${gradient.length} elements, the parameters ${offset}`,
      );
    }
  }

  memory(): { readonly tensors: number; readonly bytes: number } {
    const { numTensors, numBytes } = memory();
    return { tensors: numTensors, bytes: numBytes };
  }

  close(): void {
    // Nothing is held but the tensors themselves.
  }

  /** Storage that is the tensor's alone: tfjs keeps the array a tensor was made from, which may still be its maker's. */
  #writable(tensor: Tensor): Float32Array {
    const record = cpuBackend().data.get(tensor.dataId) as { values: unknown };
    const values = storageOf(tensor);
    if (owned.has(values)) return values;
    const copy = Float32Array.from(values);
    owned.add(copy);
    record.values = copy;
    return copy;
  }
}

const owned = new WeakSet<Float32Array>();
