import { RandomStream } from '../../common/random.ts';
import type { Link, LinkListener } from '../../worker/collectives/nats/link.ts';

/** Probabilities per published message, handshake and receipts included. */
export interface Faults {
  readonly drop: number;
  readonly duplicate: number;
  readonly corrupt: number;
  /** Sent after the next message instead of before it. */
  readonly reorder: number;
}

/** A link that misbehaves in a way that a seed repeats. */
export class FaultyLink implements Link {
  readonly #inner: Link;
  readonly #faults: Faults;
  readonly #random: RandomStream;
  #held: (() => void) | undefined;
  injected = 0;

  constructor(inner: Link, faults: Faults, seed: string) {
    this.#inner = inner;
    this.#faults = faults;
    this.#random = new RandomStream('faulty-link', seed);
  }

  get payloadBytesMax(): number {
    return this.#inner.payloadBytesMax;
  }

  get connected(): boolean {
    return this.#inner.connected;
  }

  get disconnects(): number {
    return this.#inner.disconnects;
  }

  publish(subject: string, header: string, payload: Uint8Array): void {
    const held = this.#held;
    this.#held = undefined;
    if (this.#hits(this.#faults.drop)) {
      // Lost.
    } else if (this.#hits(this.#faults.corrupt) && payload.byteLength > 0) {
      const copy = new Uint8Array(payload);
      copy[this.#random.integer(copy.length)]! ^= 1 << this.#random.integer(8);
      this.#inner.publish(subject, header, copy);
    } else if (this.#hits(this.#faults.reorder)) {
      const copy = new Uint8Array(payload);
      this.#held = () => this.#inner.publish(subject, header, copy);
    } else {
      this.#inner.publish(subject, header, payload);
      if (this.#hits(this.#faults.duplicate)) this.#inner.publish(subject, header, payload);
    }
    held?.();
  }

  subscribe(subject: string, onMessage: LinkListener): () => void {
    return this.#inner.subscribe(subject, onMessage);
  }

  flush(): Promise<void> {
    return this.#inner.flush();
  }

  onReconnect(listener: () => void): void {
    this.#inner.onReconnect(listener);
  }

  close(): Promise<void> {
    return this.#inner.close();
  }

  #hits(probability: number): boolean {
    const hit = this.#random.uniform() < probability;
    if (hit) this.injected++;
    return hit;
  }
}
