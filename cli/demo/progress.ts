import type { Clock } from '../../common/clock.ts';
import { formatDuration, formatNumber } from '../format.ts';
import type { Output } from '../output.ts';
import { StatusLine } from '../status-line.ts';
import type { ObservedStep } from './observed-run.ts';

/** With --json there is no status line; a message comes at most this often instead. */
const MESSAGE_MS_MIN = 15_000;

export interface ProgressModules {
  readonly output: Output;
  readonly clock: Clock;
}

/** What the demo says while it works: one line per phase, and a live line within a phase. All of it on stderr. */
export class DemoProgress {
  readonly #output: Output;
  readonly #clock: Clock;
  readonly #line: StatusLine;
  readonly #startedMs: number;
  #messageMs = Number.NEGATIVE_INFINITY;

  constructor({ output, clock }: ProgressModules) {
    this.#output = output;
    this.#clock = clock;
    this.#line = new StatusLine(output, () => clock.now());
    this.#startedMs = clock.now();
  }

  /** Seconds since the demo began. */
  get elapsedSeconds(): number {
    return (this.#clock.now() - this.#startedMs) / 1000;
  }

  /** A lasting line, with the time since the start. */
  say(text: string): void {
    const elapsed = formatDuration(this.elapsedSeconds).padStart(11);
    this.#line.print(`${this.#output.colors.dim(elapsed)}  ${text}`);
  }

  /** The live line. */
  update(text: string): void {
    if (!this.#output.json) {
      this.#line.update(`             ${text}`);
      return;
    }
    if (this.#clock.now() - this.#messageMs < MESSAGE_MS_MIN) return;
    this.#messageMs = this.#clock.now();
    this.#output.message(`             ${text}`);
  }

  /** Takes the live line away. */
  close(): void {
    this.#line.close();
  }
}

/** `step 120/800 · loss 2.313 · scale 16.2 · 912 images/s · ETA 2 min 3 s`. `stepSeconds` is that of the last steps. */
export function trainingText(
  step: ObservedStep,
  options: { steps: number; globalBatch: number; stepSeconds: number },
): string {
  const { steps, globalBatch, stepSeconds } = options;
  const rate = formatNumber(globalBatch / stepSeconds, 0);
  const left = formatDuration((steps - step.step) * stepSeconds);
  return `step ${step.step}/${steps} · loss ${formatNumber(step.loss, 3)} · scale ${formatNumber(step.logitScale, 1)} · ${rate} images/s · ETA ${left}`;
}
