import { type FileHandle, mkdir, open } from 'node:fs/promises';
import path from 'node:path';

/** One lane of one applied step, as this worker consumed it. */
export interface ConsumedLane {
  readonly lane: number;
  readonly epoch: number;
  readonly sampleIds: readonly string[];
}

/**
 * Appends every consumed sample as JSON lines `{step, generation, lane, epoch, samples}`: the evidence that nothing was lost or
 * doubled. A line is written only after its step was applied here. One file per process start; closed by `close`.
 */
export class SampleLog {
  readonly #file: FileHandle;
  #tail: Promise<unknown> = Promise.resolve();

  private constructor(file: FileHandle) {
    this.#file = file;
  }

  static async open(file: string): Promise<SampleLog> {
    await mkdir(path.dirname(file), { recursive: true });
    return new SampleLog(await open(file, 'a'));
  }

  append(step: number, generation: number, lanes: readonly ConsumedLane[]): void {
    const text = lanes
      .map(({ lane, epoch, sampleIds }) => `${JSON.stringify({ step, generation, lane, epoch, samples: sampleIds })}\n`)
      .join('');
    // One write at a time, so that lines never interleave.
    this.#tail = this.#tail.then(() => this.#file.appendFile(text));
  }

  async close(): Promise<void> {
    await this.#tail.finally(() => this.#file.close());
  }
}
