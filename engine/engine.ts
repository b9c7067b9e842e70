import type { EngineName } from './capabilities.ts';
import type { GradientNorms, LambMoments, LambNorms, UpdateRule, UpdateTarget } from './optim/update-rule.ts';
import type { Tensor } from './tf.ts';

/**
 * The seam of the numerics. Model code is written on tfjs-core and the ops of `engine/ops`; an engine decides where it runs.
 * `torch`: libtorch through our addon. `tensorflow`: tfjs-node. `wasm`, `cpu`: tfjs's own kernels, everywhere, slowly.
 * An engine belongs to the thread that loaded it.
 */
export interface Engine {
  readonly name: EngineName;
  /** Human-readable: library versions, threads, ISA. */
  readonly description: string;
  readonly threads: number;
  /** Where tensors are: `cpu`, `cuda:0`. */
  readonly device: string;

  /** Copies a float32 tensor's values into `out` (may be shared memory). bf16 storage is widened. */
  readInto(tensor: Tensor, out: Float32Array): void;
  /** out += tensor, element by element, in fp32. */
  addInto(tensor: Tensor, out: Float32Array): void;
  /** Overwrites a variable's or kept tensor's storage in place. */
  writeFrom(tensor: Tensor, values: Float32Array): void;
  /** Sum of squares in fp64 over fixed blocks of 4,096 elements added in order: the bits do not depend on threads. */
  sumOfSquares(values: Float32Array): number;
  /** target += source on plain (shared) memory, vectorised where possible. */
  addVectors(target: Float32Array, source: Float32Array): void;
  /** 16 hex digits over the exact bits of the tensors, in order. Equal digests mean equal weights. */
  digest(tensors: readonly Tensor[]): string;
  /** Applies an optimiser's rule to every parameter in place (`optim/update-rule.ts`). */
  applyRule(rule: UpdateRule, target: UpdateTarget): void;
  /** The norms that LARS divides; nothing changes. One weight decay per parameter. */
  gradientNorms(weightDecays: readonly number[], target: UpdateTarget): GradientNorms[];
  /** Advances LAMB's moments and gives the norms of its trust ratio; the parameters stay as they are. */
  lambMoments(constants: LambMoments, target: UpdateTarget): LambNorms[];
  /** average += weight·(value − average) in place: what does not move keeps its average exactly. */
  averageInto(averages: readonly Tensor[], values: readonly Tensor[], weight: number): void;
  memory(): EngineMemory;
  /** From now on `memory().peakBytes` is counted from what is live at this moment. */
  resetPeakMemory(): void;
  close(): void;
}

/** Memory of tensors. libtorch's storage is counted per process, or per GPU: two engines in one process see each other's. */
export interface EngineMemory {
  /** Tensors as tfjs counts them; several may share storage. */
  readonly tensors: number;
  /** Bytes as tfjs counts them: by shape, 4 for each float whatever its storage, nothing for what only a backward holds. */
  readonly bytes: number;
  /** Storage in use, with what backward holds. */
  readonly liveBytes: number;
  /** The most that was in use at once since the last `resetPeakMemory`. */
  readonly peakBytes: number;
  /** What the process has from the system for it, used or not; at least `liveBytes` where it is known. */
  readonly reservedBytes: number;
}
