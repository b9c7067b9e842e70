import type { Clock } from '../../../common/clock.ts';

const TICK_MS = 100;
/** A tick this late means that this thread was blocked: what it waits for may already lie in the socket. */
const LATE_TICK_MS = 150;

/** Calls back every 100 ms for as long as there is something to look after. */
export class Ticker {
  readonly #clock: Clock;
  readonly #onTick: (nowMs: number, late: boolean) => boolean;
  #timer: NodeJS.Timeout | undefined;
  #tickedAtMs = 0;

  /** `onTick` returns whether it wants to be called again; `late`: this thread was blocked meanwhile. */
  constructor(clock: Clock, onTick: (nowMs: number, late: boolean) => boolean) {
    this.#clock = clock;
    this.#onTick = onTick;
  }

  start(): void {
    if (this.#timer) return;
    this.#tickedAtMs = this.#clock.now();
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
  }

  /** A tick now, where it runs. */
  tickNow(): void {
    if (this.#timer) this.#tick();
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #tick(): void {
    const nowMs = this.#clock.now();
    const late = nowMs - this.#tickedAtMs > TICK_MS + LATE_TICK_MS;
    this.#tickedAtMs = nowMs;
    if (!this.#onTick(nowMs, late)) this.stop();
  }
}
