import { CoveyError } from '../../common/errors.ts';

/**
 * The training state as one block of shared memory: a small header, then weights, first and second moments, each flat in
 * parameter order. It is what a peer sends to heal another, and what a checkpoint is cut from.
 */
const HEADER_BYTES = 64;
const MAGIC = 0x43565931; // "CVY1"

export interface StateHeader {
  /** Updates the run has taken (skipped ones included): the index of the next step. */
  readonly step: number;
  /** Updates the optimiser applied (bias correction counts these). */
  readonly optimizerStep: number;
  /** Steps refused because they were not finite. */
  readonly skippedSteps: number;
}

export function stateBytes(parameterFloats: number): number {
  return HEADER_BYTES + 3 * 4 * parameterFloats;
}

/** Typed views on a state block. */
export class StateView {
  readonly buffer: SharedArrayBuffer;
  readonly weights: Float32Array;
  readonly firstMoments: Float32Array;
  readonly secondMoments: Float32Array;
  readonly #header: Float64Array;

  constructor(buffer: SharedArrayBuffer, parameterFloats: number) {
    this.buffer = buffer;
    this.#header = new Float64Array(buffer, 0, HEADER_BYTES / 8);
    this.weights = new Float32Array(buffer, HEADER_BYTES, parameterFloats);
    this.firstMoments = new Float32Array(buffer, HEADER_BYTES + 4 * parameterFloats, parameterFloats);
    this.secondMoments = new Float32Array(buffer, HEADER_BYTES + 8 * parameterFloats, parameterFloats);
  }

  get bytes(): Uint8Array {
    return new Uint8Array(this.buffer);
  }

  writeHeader(header: StateHeader): void {
    this.#header.set([MAGIC, this.weights.length, header.step, header.optimizerStep, header.skippedSteps]);
  }

  /** Throws DATA_CORRUPT where the block is not a state of this model. */
  readHeader(): StateHeader {
    const [magic, floats, step, optimizerStep, skippedSteps] = this.#header;
    if (magic !== MAGIC || floats !== this.weights.length) {
      throw new CoveyError('DATA_CORRUPT', 'Cannot use the training state: it is not one of this model', {
        fields: { magic, floats, expectedFloats: this.weights.length },
      });
    }
    return { step: step!, optimizerStep: optimizerStep!, skippedSteps: skippedSteps! };
  }
}
