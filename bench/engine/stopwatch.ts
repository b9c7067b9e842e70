import type { Timings } from './protocol.ts';

/** Wall time and this process's CPU time by phase. */
export class Stopwatch {
  readonly #phases = new Map<string, { wallMs: number[]; cpuMs: number[] }>();
  #wallMs = 0;
  #cpuMs = 0;

  start(): void {
    this.#cpuMs = cpuMs();
    this.#wallMs = performance.now();
  }

  /** Ends a phase; the next begins. */
  lap(phase: string): void {
    const wall = performance.now();
    const cpu = cpuMs();
    const timings = this.#phases.get(phase) ?? { wallMs: [], cpuMs: [] };
    timings.wallMs.push(wall - this.#wallMs);
    timings.cpuMs.push(cpu - this.#cpuMs);
    this.#phases.set(phase, timings);
    this.start();
  }

  timings(phase: string): Timings {
    return this.#phases.get(phase) ?? { wallMs: [], cpuMs: [] };
  }

  all(): Record<string, Timings> {
    return Object.fromEntries(this.#phases);
  }
}

/** All threads, user and system. */
function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}
