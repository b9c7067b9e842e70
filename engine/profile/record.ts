import type { ModulePath } from './module-path.ts';

/** What a profile recorded, before anything is added up. Times are nanoseconds since the profile began, all on one clock. */
export interface ProfileRecord {
  readonly kernels: readonly KernelEvent[];
  readonly scopes: readonly ScopeEvent[];
  /** In order of time. */
  readonly memory: readonly MemorySample[];
  /** False: `bytes` counts tensors as tfjs does (bf16 as 4 bytes), without kernels' scratch memory. */
  readonly memoryIsExact: boolean;
  /** Calls that came after the record was full. */
  readonly dropped: number;
}

/** Where in a step something happened: while recording, while sweeping the tape, or in neither (optimiser, exchange, loss). */
export type Phase = 'forward' | 'backward' | 'other';

export interface Interval {
  readonly startedNs: number;
  readonly endedNs: number;
}

export interface ScopeEvent extends Interval {
  readonly module: ModulePath;
  readonly phase: Phase;
  /** Set for a whole step, by its number; the module is then the root. */
  readonly step?: number;
  readonly bytesBefore: number;
  readonly bytesAfter: number;
}

/** Memory at the boundary of a module. */
export interface MemorySample {
  readonly timeNs: number;
  readonly bytes: number;
  /** Largest value since the previous sample, where the allocator tells; else the larger of the two samples. */
  readonly peakBytes: number;
  /** Which module was running until then. */
  readonly module: ModulePath;
  readonly phase: Phase;
}

/** One call of a native function, an ATen operator or a tfjs kernel. */
export interface KernelEvent extends Interval {
  readonly name: string;
  readonly inputs: readonly TensorShape[];
  readonly outputs: readonly TensorShape[];
  /** Results that share an input's storage: views, and what was updated in place. */
  readonly aliases: readonly TensorShape[];
  /** Boolean arguments, in order. */
  readonly flags: readonly boolean[];
  /** Bytes of plain JavaScript arrays that were read or written. */
  readonly hostBytes: number;
}

export interface TensorShape {
  readonly type: string;
  readonly elementBytes: number;
  readonly shape: readonly number[];
}

export function elementsOf({ shape }: TensorShape): number {
  return shape.reduce((product, side) => product * side, 1);
}

export function bytesOf(tensor: TensorShape): number {
  return elementsOf(tensor) * tensor.elementBytes;
}
