import { CoveyError } from '../common/errors.ts';
import type { EngineName } from './capabilities.ts';
import type { CountedStorage } from './counted-storage.ts';
import type { Engine, EngineMemory } from './engine.ts';
import { digest, sumOfSquares } from './host-math.ts';
import { applyRuleOnHost, gradientNormsOnHost, type HostSlice, lambMomentsOnHost } from './optim/host-rules.ts';
import type { GradientNorms, LambMoments, LambNorms, UpdateRule, UpdateTarget } from './optim/update-rule.ts';
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

/** The gradient sums of the parameter at `index`. @throws INVALID_ARGUMENT where the flat gradient ends before them */
export function gradientOf({ parameters, gradient, offsets }: UpdateTarget, index: number): Float32Array {
  if (!(gradient instanceof Float32Array)) {
    throw new CoveyError('INVALID_ARGUMENT', 'Cannot update: this engine takes the gradient as one flat array');
  }
  const begin = offsets[index]!;
  const end = begin + parameters[index]!.size;
  if (begin >= 0 && end <= gradient.length) return gradient.subarray(begin, end);
  throw new CoveyError(
    'INVALID_ARGUMENT',
    `Cannot update: the gradient has ${gradient.length} elements, a parameter's are ${begin} to ${end}`,
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

  abstract applyRule(rule: UpdateRule, target: UpdateTarget): void;
  abstract gradientNorms(weightDecays: readonly number[], target: UpdateTarget): GradientNorms[];
  abstract lambMoments(constants: LambMoments, target: UpdateTarget): LambNorms[];
  abstract averageInto(averages: readonly Tensor[], values: readonly Tensor[], weight: number): void;

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

  applyRule(rule: UpdateRule, target: UpdateTarget): void {
    target.parameters.forEach((_, index) => {
      applyRuleOnHost(rule, this.#slice(target, index), index);
    });
  }

  gradientNorms(weightDecays: readonly number[], target: UpdateTarget): GradientNorms[] {
    return target.parameters.map((_, index) => gradientNormsOnHost(this.#slice(target, index), weightDecays[index]!));
  }

  lambMoments(constants: LambMoments, target: UpdateTarget): LambNorms[] {
    return target.parameters.map((_, index) => lambMomentsOnHost(constants, this.#slice(target, index), index));
  }

  averageInto(averages: readonly Tensor[], values: readonly Tensor[], weight: number): void {
    averages.forEach((tensor, index) => {
      const average = this.writable(tensor);
      const value = floatsOf(values[index]!);
      for (let i = 0; i < average.length; i++) average[i]! += weight * (value[i]! - average[i]!);
    });
  }

  #slice(target: UpdateTarget, index: number): HostSlice {
    return {
      parameter: this.writable(target.parameters[index]!),
      slots: target.slots.map((slot) => this.writable(slot[index]!)),
      gradient: gradientOf(target, index),
      gradientScale: target.gradientScale,
    };
  }

  /** The tensor's storage, its own alone; valid until the next op. */
  protected abstract writable(tensor: Tensor): Float32Array;
}
