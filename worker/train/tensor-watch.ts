/** Live tensors that grew from step to step, which in a sound run they never do. */
export interface TensorGrowth {
  readonly from: number;
  readonly to: number;
  /** What they are, where the tensor debugger runs; else empty. */
  readonly leaks: readonly string[];
}

/** What the watch asks of the tensor debugger. */
export interface LeakNamer {
  mark(): void;
  report(): string[];
}

/** Growing for this many steps in a row is a leak; once may be something that is made on first use. */
const GROWING_STEPS = 3;
/** After a report: time for a person to read it. */
const QUIET_STEPS = 100;

/** Sees live tensors grow between steps and has them named. One per training; blind to what they are. */
export class TensorWatch {
  readonly #namer: LeakNamer | undefined;
  #from: number | undefined;
  #last = 0;
  #growing = 0;
  #quiet = 0;

  constructor(namer: LeakNamer | undefined) {
    this.#namer = namer;
  }

  /** To be told of the count after every step. Returns what has grown since the last step at which it stood still. */
  after(tensors: number): TensorGrowth | null {
    const grew = this.#from !== undefined && tensors > this.#last;
    this.#last = tensors;
    if (!grew) {
      this.#from = tensors;
      this.#growing = 0;
      this.#namer?.mark();
    }
    this.#growing += grew ? 1 : 0;
    if (this.#quiet > 0) this.#quiet--;
    if (this.#growing < GROWING_STEPS || this.#quiet > 0) return null;
    this.#quiet = QUIET_STEPS;
    return { from: this.#from!, to: tensors, leaks: this.#namer?.report() ?? [] };
  }
}
