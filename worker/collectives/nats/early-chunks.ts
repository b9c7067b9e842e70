import type { Frame } from './frame.ts';

export interface EarlyChunk {
  readonly offset: number;
  readonly total: number;
  readonly bytes: Uint8Array;
}

/**
 * Chunks of operations this rank has not begun yet. They are not confirmed until they are placed, so the senders' credit bounds
 * them; what a faulty sender pours in beyond that is dropped and asked for again later.
 */
export class EarlyChunks {
  readonly #byKey = new Map<string, Map<number, EarlyChunk>>();
  #heldBytes: number[] = [];
  #grant = 0;

  /** Forgets everything; `grant` is what each of `world` sources may have in flight, bytes. */
  reset(world: number, grant: number): void {
    this.#byKey.clear();
    this.#grant = grant;
    this.#heldBytes = new Array<number>(world).fill(0);
  }

  /** False: a duplicate, or beyond the limit. */
  keep(key: string, frame: Frame, bytes: Uint8Array): boolean {
    const chunks = this.#byKey.get(key) ?? new Map<number, EarlyChunk>();
    const held = this.#heldBytes[frame.source]! + bytes.byteLength;
    // Twice the grant: a resent copy may arrive while the accounts of its first loss are still open.
    if (chunks.has(frame.offset) || held > 2 * this.#grant) return false;
    this.#byKey.set(key, chunks.set(frame.offset, { offset: frame.offset, total: frame.total, bytes }));
    this.#heldBytes[frame.source] = held;
    return true;
  }

  /** Hands over what came early for a transfer. */
  take(key: string, source: number): readonly EarlyChunk[] {
    const chunks = this.#byKey.get(key);
    if (!chunks) return [];
    this.#byKey.delete(key);
    for (const { bytes } of chunks.values()) this.#heldBytes[source]! -= bytes.byteLength;
    return [...chunks.values()];
  }
}
