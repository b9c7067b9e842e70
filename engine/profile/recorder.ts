import { internals, type TapeNode } from '../tfjs-internals.ts';
import { type ModulePath, ROOT_MODULE } from './module-path.ts';
import type { KernelEvent, MemorySample, Phase, ScopeEvent } from './record.ts';

/** A point in time, and the memory there. */
export interface ProfileMark {
  /** Nanoseconds since the profile began. */
  readonly timeNs: number;
  readonly bytes: number;
  /** The most since the mark before; undefined where nobody counts. */
  readonly peakBytes: number | undefined;
}

interface OpenScope {
  readonly module: ModulePath;
  readonly phase: Phase;
  readonly step: number | undefined;
  readonly startedNs: number;
  readonly bytesBefore: number;
  readonly outerModule: ModulePath;
  readonly outerPhase: Phase;
}

/** Collects scopes, memory at their boundaries, and kernels that run in JavaScript. One per profile. */
export class Recorder {
  readonly scopes: ScopeEvent[] = [];
  readonly memory: MemorySample[] = [];
  readonly kernels: KernelEvent[] = [];
  readonly #mark: () => ProfileMark;
  readonly #open: OpenScope[] = [];
  #module: ModulePath = ROOT_MODULE;
  #phase: Phase = 'other';
  #peakBytes = 0;
  #tape: readonly TapeNode[] | null = null;
  #claimed = 0;

  constructor(mark: () => ProfileMark) {
    this.#mark = mark;
    this.#peakBytes = mark().bytes;
  }

  /** The module that runs now. */
  get module(): ModulePath {
    return this.#module;
  }

  within<T>(module: ModulePath, f: () => T, phase = this.#phase, step?: number): T {
    this.#enter(module, phase, step);
    try {
      return f();
    } finally {
      this.#leave();
    }
  }

  apart<T>(name: string, f: () => T): T {
    return this.within(ROOT_MODULE.child(name), f, 'other');
  }

  step<T>(number: number, f: () => T): T {
    return this.within(ROOT_MODULE, f, 'other', number);
  }

  /** A forward that is recorded. One that a backward repeats counts as backward. */
  recording<T>(f: () => T): T {
    const outer = this.#phase;
    if (outer === 'other') this.#phase = 'forward';
    try {
      return f();
    } finally {
      this.#claimNodes();
      this.#phase = outer;
    }
  }

  /** Times a kernel that runs in JavaScript. */
  kernel<T>(run: () => T, describe: (result: T) => Omit<KernelEvent, 'startedNs' | 'endedNs'>): T {
    const startedNs = this.#read().timeNs;
    const result = run();
    const endedNs = this.#read().timeNs;
    this.kernels.push({ ...describe(result), startedNs, endedNs });
    return result;
  }

  sweep(): { to(module: ModulePath | undefined): void; close(): void } {
    let opened: ModulePath[] = [];
    const to = (module: ModulePath | undefined): void => {
      if (module === opened.at(-1)) return;
      const chain = module?.chain() ?? [];
      let common = 0;
      while (common < opened.length && opened[common] === chain[common]) common++;
      for (let i = opened.length; i > common; i--) this.#leave();
      for (const next of chain.slice(common)) this.#enter(next, 'backward');
      opened = chain;
    };
    return { to, close: () => to(undefined) };
  }

  #enter(module: ModulePath, phase: Phase, step?: number): void {
    this.#claimNodes();
    const { timeNs, bytes } = this.#boundary();
    const outer = { outerModule: this.#module, outerPhase: this.#phase };
    this.#open.push({ module, phase, step, startedNs: timeNs, bytesBefore: bytes, ...outer });
    this.#module = module;
    this.#phase = phase;
  }

  #leave(): void {
    const { timeNs, bytes } = this.#boundary();
    this.#claimNodes();
    const { module, phase, step, startedNs, bytesBefore, outerModule, outerPhase } = this.#open.pop()!;
    const numbered = step === undefined ? {} : { step };
    this.scopes.push({ module, phase, startedNs, endedNs: timeNs, bytesBefore, bytesAfter: bytes, ...numbered });
    this.#module = outerModule;
    this.#phase = outerPhase;
  }

  #boundary(): ProfileMark {
    const mark = this.#read();
    const { timeNs, bytes } = mark;
    this.memory.push({ timeNs, bytes, peakBytes: this.#peakBytes, module: this.#module, phase: this.#phase });
    this.#peakBytes = bytes;
    return mark;
  }

  #read(): ProfileMark {
    const mark = this.#mark();
    this.#peakBytes = Math.max(this.#peakBytes, mark.peakBytes ?? mark.bytes);
    return mark;
  }

  /** What was recorded since the last boundary belongs to the module that ran. */
  #claimNodes(): void {
    const tape = internals().state.activeTape;
    if (tape !== this.#tape) {
      this.#tape = tape;
      this.#claimed = 0;
    }
    if (!tape) return;
    for (; this.#claimed < tape.length; this.#claimed++) tape[this.#claimed]!.module ??= this.#module;
  }
}
