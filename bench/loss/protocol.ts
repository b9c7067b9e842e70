/** What bench/loss.ts says to a side, one line of JSON each way. A side is a process of its own, so that its peak of memory is its own. */

export type LossName = 'clip' | 'siglip';

export interface LossSettings {
  readonly loss: LossName;
  /** Rows of the global batch, N. */
  readonly samples: number;
  /** Rows of this rank, R. */
  readonly rows: number;
  /** D. */
  readonly width: number;
  readonly threads: number;
}

export interface LossReady {
  readonly version: string;
}

/** `memory` runs the loss once and must come first: the heap is still small then. */
export type LossRequest = { readonly do: 'memory' } | { readonly do: 'run'; readonly count: number };

export interface LossMemory {
  /** The most that was held beyond inputs and outputs, bytes. */
  readonly beyondBytes: number;
  readonly lossSum: number;
}

export interface LossTimes {
  readonly seconds: readonly number[];
  /** Of all threads: on a machine that others use it says more than the wall time. */
  readonly cpuSeconds: readonly number[];
}
