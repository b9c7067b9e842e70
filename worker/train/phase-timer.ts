/** Splits a step's wall time into named phases; each mark ends the phase it names. */
export class PhaseTimer {
  readonly seconds: Record<string, number> = {};
  #last = performance.now();

  mark(phase: string): void {
    const now = performance.now();
    this.seconds[phase] = (this.seconds[phase] ?? 0) + (now - this.#last) / 1000;
    this.#last = now;
  }
}
