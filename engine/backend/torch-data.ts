import type { HeldHandles } from '../debug/handle-net.ts';
import type { DataType } from '../tf.ts';

/**
 * What a tensor's DataId is on the torch backend: the storage record itself, so that no lookup stands between a tensor and its handle.
 */
export class TorchData {
  /** Released records hold RELEASED; string tensors, which have no storage in the addon, STRINGS. */
  handle: number;
  readonly dtype: DataType;
  references = 1;
  strings: unknown;
  /** bf16 copy of a variable, made on first use, updated by the optimiser, dropped when the variable is written otherwise. */
  half: number | undefined;
  /** Set while the tensor debugger watches. */
  held: HeldHandles | undefined;
  /** Channels-last bf16 copy of a convolution's weight, made on first use, dropped when the variable is written. */
  turned: number | undefined;

  constructor(handle: number, dtype: DataType, strings?: unknown) {
    this.handle = handle;
    this.dtype = dtype;
    this.strings = strings;
  }
}

export const STRINGS = -1;
export const RELEASED = -2;
