/**
 * Buffers for what arrives before it is summed. They are reused step after step, because the first touch of fresh memory costs
 * more than the copy into it.
 */
export class StagingPool {
  readonly #bytesMax: number;
  /** Free buffers by size; the oldest use first. */
  readonly #free = new Map<number, ArrayBuffer[]>();
  #freeBytes = 0;

  /** Keeps at most `bytesMax` of free buffers. */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  take(byteLength: number): ArrayBuffer {
    const buffer = this.#free.get(byteLength)?.pop();
    if (!buffer) return new ArrayBuffer(byteLength);
    this.#freeBytes -= byteLength;
    return buffer;
  }

  /** Gives back buffers nothing refers to any more. */
  give(buffers: readonly ArrayBuffer[]): void {
    for (const buffer of buffers) {
      if (this.#freeBytes + buffer.byteLength > this.#bytesMax) continue;
      const sizes = this.#free.get(buffer.byteLength) ?? [];
      sizes.push(buffer);
      this.#free.set(buffer.byteLength, sizes);
      this.#freeBytes += buffer.byteLength;
    }
  }
}
