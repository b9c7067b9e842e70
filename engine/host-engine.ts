import { CoveyError } from '../common/errors.ts';
import type { EngineName } from './capabilities.ts';
import type { CountedStorage } from './counted-storage.ts';
import type { AdamWUpdate, Engine, EngineMemory } from './engine.ts';
import { digest, sumOfSquares } from './host-math.ts';
import { memory, type Tensor } from './tf.ts';

/** @throws INVALID_ARGUMENT where an array does not have as many elements as the tensor. */
export function checkLength(tensor: Tensor, values: Float32Array): void {
  if (tensor.size === values.length) return;
  throw new CoveyError(
    'INVALID_ARGUMENT',
    `Cannot copy: the tensor has ${tensor.size} elements, the array ${values.length}`,
  );
}

/** A tensor's values as floats: its storage or a copy of it, whichever the current backend hands out. */
export function floatsOf(tensor: Tensor): Float32Array {
  const values = tensor.dataSync();
  if (!(values instanceof Float32Array)) {
    throw new CoveyError('INVALID_ARGUMENT', `Cannot use a tensor as floats: its type is ${tensor.dtype}`);
  }
  return values;
}

/** The flat gradient. @throws INVALID_ARGUMENT where it is none, or not as long as all parameters together. */
export function flatGradient({ parameters, gradient }: AdamWUpdate): Float32Array {
  if (!(gradient instanceof Float32Array)) {
    throw new CoveyError('INVALID_ARGUMENT', 'Cannot update: this engine takes the gradient as one flat array');
  }
  const elements = parameters.reduce((sum, parameter) => sum + parameter.size, 0);
  if (elements === gradient.length) return gradient;
  throw new CoveyError(
    'INVALID_ARGUMENT',
    `Cannot update: the gradient has ${gradient.length} elements, the parameters ${elements}`,
  );
}

/** What engines share whose tensors are read through JavaScript arrays. Sums and digests give the bits of the addon's. */
export abstract class HostEngine implements Engine {
  abstract readonly name: EngineName;
  abstract readonly description: string;
  abstract readonly threads: number;
  readonly device = 'cpu';
  readonly #storage: CountedStorage;

  /** @param storage counts what the current tfjs backend stores */
  constructor(storage: CountedStorage) {
    this.#storage = storage;
  }

  readInto(tensor: Tensor, out: Float32Array): void {
    checkLength(tensor, out);
    out.set(floatsOf(tensor));
  }

  addInto(tensor: Tensor, out: Float32Array): void {
    checkLength(tensor, out);
    this.addVectors(out, floatsOf(tensor));
  }

  abstract writeFrom(tensor: Tensor, values: Float32Array): void;

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
    return digest(tensors.map(floatsOf));
  }

  abstract adamW(update: AdamWUpdate): void;

  memory(): EngineMemory {
    const { numTensors, numBytes } = memory();
    const { liveBytes, peakBytes } = this.#storage;
    return { tensors: numTensors, bytes: numBytes, liveBytes, peakBytes, reservedBytes: liveBytes };
  }

  resetPeakMemory(): void {
    this.#storage.resetPeak();
  }

  close(): void {
    // Nothing is held but the tensors themselves.
  }
}

/** An engine whose tensors' storage is memory that JavaScript can write to: updates are loops over it. */
export abstract class InPlaceEngine extends HostEngine {
  readonly threads = 1;

  writeFrom(tensor: Tensor, values: Float32Array): void {
    checkLength(tensor, values);
    this.writable(tensor).set(values);
  }

  adamW(update: AdamWUpdate): void {
    const gradient = flatGradient(update);
    const { beta1, beta2, eps, gradientScale, step } = update;
    const secondCorrection = 1 / Math.sqrt(1 - beta2 ** step);
    let offset = 0;
    update.parameters.forEach((tensor, index) => {
      const parameter = this.writable(tensor);
      const first = this.writable(update.firstMoments[index]!);
      const second = this.writable(update.secondMoments[index]!);
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
  }

  /** The tensor's storage, its own alone; valid until the next op. */
  protected abstract writable(tensor: Tensor): Float32Array;
}
