import { createHash } from 'node:crypto';
import { assert, CoveyError } from '../../common/errors.ts';

/** Names of parts that do not belong to an optimiser. */
export const WEIGHTS = 'weights';
/** The moving average of the weights. */
export const EMA = 'ema';
/** State that no gradient changes: see `TrainedModel.buffers`. The one section of another size. */
export const BUFFERS = 'buffers';

/**
 * The training state as one block of shared memory: a small header, then sections, each flat in parameter order: the weights, the
 * optimiser's slots, the average of the weights; last the buffers. It is what a peer sends to heal another, and what a checkpoint is cut from.
 */
export interface StateLayout {
  readonly parameterFloats: number;
  /** Of the section `buffers`; 0 where there is none. */
  readonly bufferFloats: number;
  /** Names in order; `weights` is the first, `buffers` the last. */
  readonly stateSections: readonly string[];
}

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

export function stateBytes(layout: StateLayout): number {
  return layout.stateSections.reduce((bytes, name) => bytes + 4 * sectionFloats(layout, name), HEADER_BYTES);
}

function sectionFloats({ parameterFloats, bufferFloats }: StateLayout, name: string): number {
  return name === BUFFERS ? bufferFloats : parameterFloats;
}

/** Differs between states that must not be taken for each other. */
function stateKind({ stateSections, bufferFloats }: StateLayout): string {
  return [...stateSections, ...(bufferFloats > 0 ? [String(bufferFloats)] : [])].join(' ');
}

/** Typed views on a state block. */
export class StateView {
  readonly buffer: SharedArrayBuffer;
  readonly layout: StateLayout;
  readonly #header: Float64Array;
  /** Marks the sections' names, so that another optimiser's block is not taken for this one's. */
  readonly #kind: number;

  constructor(buffer: SharedArrayBuffer, layout: StateLayout) {
    this.buffer = buffer;
    this.layout = layout;
    this.#header = new Float64Array(buffer, 0, HEADER_BYTES / 8);
    this.#kind = createHash('sha256').update(stateKind(layout)).digest().readUInt32LE();
  }

  /** A section's floats, all parameters one behind the other. */
  section(name: string): Float32Array {
    const { parameterFloats, stateSections } = this.layout;
    const place = stateSections.indexOf(name);
    assert(place >= 0, 'the state has the section', { name, stateSections });
    // Those before it are all of the parameters' size: `buffers` is the last.
    return new Float32Array(this.buffer, HEADER_BYTES + place * 4 * parameterFloats, sectionFloats(this.layout, name));
  }

  get bytes(): Uint8Array {
    return new Uint8Array(this.buffer);
  }

  writeHeader({ step, optimizerStep, skippedSteps }: StateHeader): void {
    this.#header.set([MAGIC, this.layout.parameterFloats, step, optimizerStep, skippedSteps, this.#kind]);
  }

  /** Throws DATA_CORRUPT where the block is not a state of this model and optimiser. */
  readHeader(): StateHeader {
    const [magic, floats, step, optimizerStep, skippedSteps, kind] = this.#header;
    const { parameterFloats, stateSections } = this.layout;
    if (magic !== MAGIC || floats !== parameterFloats || kind !== this.#kind) {
      throw new CoveyError('DATA_CORRUPT', 'Cannot use the training state: it is not one of this model and optimiser', {
        fields: { magic, floats, expectedFloats: parameterFloats, stateSections },
      });
    }
    return { step: step!, optimizerStep: optimizerStep!, skippedSteps: skippedSteps! };
  }
}
