import { closeSync, mkdirSync, openSync, writeSync } from 'node:fs';
import path from 'node:path';

/** One lane of a step, as this worker is about to compute it. */
export interface ConsumedLane {
  readonly lane: number;
  readonly epoch: number;
  readonly sampleIds: readonly string[];
}

/**
 * Appends the samples of every lane as JSON lines `{step, generation, lane, epoch, samples}`: the evidence that nothing was lost or
 * doubled. A line is written before its lane is computed, in one write that survives a kill of this process; it counts where the
 * step was committed in that generation, for a step commits only with all its lanes. Closed by `close`.
 */
export class SampleLog {
  readonly #file: number;

  constructor(file: string) {
    mkdirSync(path.dirname(file), { recursive: true });
    this.#file = openSync(file, 'a');
  }

  append(step: number, generation: number, lanes: readonly ConsumedLane[]): void {
    const lines = lanes.map(({ lane, epoch, sampleIds }) =>
      JSON.stringify({ step, generation, lane, epoch, samples: sampleIds }),
    );
    writeSync(this.#file, lines.map((line) => `${line}\n`).join(''));
  }

  close(): void {
    closeSync(this.#file);
  }
}
