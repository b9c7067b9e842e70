import { assert, CoveyError } from '../../../common/errors.ts';

/** Byte ranges of one vector on their way in or out. Pure bookkeeping: no network, no clock but the times passed in. */

export interface IncomingSpec {
  readonly op: string;
  readonly part: number;
  /** Rank it comes from. */
  readonly source: number;
  /** Where the bytes go; its length is the transfer's. */
  readonly target: Uint8Array;
  /** A chunk was placed. */
  readonly onChunk?: (chunk: number) => void;
  readonly onComplete: () => void;
  /** A chunk does not fit: the ranks disagree about this operation. */
  readonly onMisfit: (error: CoveyError) => void;
}

/** What a receiver knows of a transfer: which chunks are there. */
export class IncomingTransfer {
  readonly spec: IncomingSpec;
  readonly #chunkBytes: number;
  readonly #have: Uint8Array;
  #chunksMissing: number;
  /** One past the last chunk that arrived. */
  #frontier = 0;
  /** Distinct bytes placed. */
  received = 0;
  /** `received` when the sender was last told. */
  acknowledged = 0;
  /** Bytes placed for which a receipt is due and counted. */
  owed = 0;
  progressAtMs: number;
  /** Next NAK not before this. */
  nakAtMs = 0;
  nakDelayMs: number;

  constructor(spec: IncomingSpec, chunkBytes: number, nowMs: number, nakDelayMs: number) {
    assert(spec.target.byteLength > 0, 'an empty transfer is not sent');
    this.spec = spec;
    this.#chunkBytes = chunkBytes;
    this.#chunksMissing = Math.ceil(spec.target.byteLength / chunkBytes);
    this.#have = new Uint8Array(this.#chunksMissing);
    this.progressAtMs = nowMs;
    this.nakDelayMs = nakDelayMs;
  }

  get complete(): boolean {
    return this.#chunksMissing === 0;
  }

  /** A misfit (the ranks disagree about the operation) and a duplicate change nothing. */
  place(offset: number, total: number, bytes: Uint8Array): 'placed' | 'duplicate' | 'misfit' {
    const { target } = this.spec;
    const chunk = offset / this.#chunkBytes;
    const expected = Math.min(this.#chunkBytes, target.byteLength - offset);
    if (total !== target.byteLength || !Number.isInteger(chunk) || bytes.byteLength !== expected) return 'misfit';
    if (this.#have[chunk]) return 'duplicate';
    target.set(bytes, offset);
    this.#have[chunk] = 1;
    this.#frontier = Math.max(this.#frontier, chunk + 1);
    this.#chunksMissing--;
    this.received += bytes.byteLength;
    this.spec.onChunk?.(chunk);
    return 'placed';
  }

  /** Missing chunks below this index have been overtaken by later ones. */
  get overtaken(): number {
    return this.#frontier;
  }

  get chunkCount(): number {
    return this.#have.length;
  }

  /** The first `countMax` missing chunks below index `end`. */
  missing(countMax: number, end: number): number[] {
    const found: number[] = [];
    for (let chunk = 0; chunk < Math.min(end, this.#have.length) && found.length < countMax; chunk++) {
      if (!this.#have[chunk]) found.push(chunk);
    }
    return found;
  }
}

export interface OutgoingSpec {
  readonly op: string;
  readonly part: number;
  /** Ranks it goes to. All peers: one broadcast message per chunk. */
  readonly destinations: readonly number[];
  readonly bytes: Uint8Array;
  /** False: chunks are sent as `markReady` releases them (a sum still being computed). */
  readonly ready: boolean;
  /** Every destination has confirmed every byte: `bytes` is not needed any more. */
  readonly onReceipts: () => void;
}

/** What a sender knows of a transfer: what was sent, and what each destination has confirmed. */
export class OutgoingTransfer {
  readonly spec: OutgoingSpec;
  readonly chunkCount: number;
  readonly #chunkBytes: number;
  #bytes: Uint8Array;
  readonly #ready: Uint8Array | undefined;
  /** When each chunk was last sent; 0 = never. */
  readonly #sentAtMs: Float64Array;
  #lossy = false;
  /** First chunk that was never sent. */
  #cursor = 0;
  /** Distinct bytes sent. */
  sent = 0;
  /** Bytes confirmed, by rank. */
  readonly confirmed = new Map<number, number>();
  progressAtMs = 0;
  probeDelayMs: number;

  constructor(spec: OutgoingSpec, chunkBytes: number, probeDelayMs: number) {
    this.spec = spec;
    this.#bytes = spec.bytes;
    this.#chunkBytes = chunkBytes;
    this.chunkCount = Math.ceil(spec.bytes.byteLength / chunkBytes);
    this.#ready = spec.ready ? undefined : new Uint8Array(this.chunkCount);
    this.#sentAtMs = new Float64Array(this.chunkCount);
    this.probeDelayMs = probeDelayMs;
    for (const rank of spec.destinations) this.confirmed.set(rank, 0);
  }

  get total(): number {
    return this.#bytes.byteLength;
  }

  /** Chunks sent at least once: those below this index. */
  get cursor(): number {
    return this.#cursor;
  }

  get allSent(): boolean {
    return this.sent === this.total;
  }

  get allConfirmed(): boolean {
    for (const bytes of this.confirmed.values()) if (bytes < this.total) return false;
    return true;
  }

  /** Destinations that have not confirmed everything. */
  lagging(): number[] {
    return this.spec.destinations.filter((rank) => this.confirmed.get(rank)! < this.total);
  }

  /** Keeps a private copy of the bytes, so that the caller's memory may change while receipts are outstanding. */
  detach(): void {
    this.#bytes = this.#bytes.slice();
  }

  markReady(chunk: number): void {
    assert(this.#ready !== undefined, 'this transfer was ready from the start');
    this.#ready[chunk] = 1;
  }

  /** The next chunk to send for the first time, or -1. Chunks become ready in any order but are sent in order. */
  next(): number {
    if (this.#cursor >= this.chunkCount) return -1;
    return this.#ready && !this.#ready[this.#cursor] ? -1 : this.#cursor;
  }

  chunk(index: number): Uint8Array {
    return this.#bytes.subarray(index * this.#chunkBytes, (index + 1) * this.#chunkBytes);
  }

  offset(index: number): number {
    return index * this.#chunkBytes;
  }

  noteSent(index: number, nowMs: number): void {
    if (index === this.#cursor) {
      this.#cursor++;
      this.sent += this.chunk(index).byteLength;
    }
    this.#sentAtMs[index] = nowMs;
    this.progressAtMs = nowMs;
  }

  /** How long ago the last of `confirmedBytes` was sent; undefined once anything of it was lost, when the answer would be the time of
   * the repair (Karn & Partridge 1987). */
  confirmationMs(confirmedBytes: number, nowMs: number): number | undefined {
    if (this.#lossy) return undefined;
    const sentAtMs = this.#sentAtMs[Math.ceil(confirmedBytes / this.#chunkBytes) - 1];
    return sentAtMs ? nowMs - sentAtMs : undefined;
  }

  /** The connection broke: whatever was sent may be lost, however recently. */
  forgetTimes(): void {
    this.#sentAtMs.fill(0);
    this.#lossy = true;
  }

  /** Of the chunks a receiver misses, those sent at least `ageMs` ago: younger ones may still be on their way. */
  resendable(missing: readonly number[], nowMs: number, ageMs: number): number[] {
    this.#lossy = true;
    return missing.filter((chunk) => chunk < this.#cursor && nowMs - this.#sentAtMs[chunk]! >= ageMs);
  }
}

/** What the receiver is told of a chunk that does not fit its transfer. */
export function misfit({ op, source, target }: IncomingSpec, offset: number, total: number, bytes: number): CoveyError {
  const expectedBytes = target.byteLength;
  return new CoveyError(
    'DATA_CORRUPT',
    `Cannot take a chunk of operation ${op} from rank ${source}: it is of another shape: ` +
      `${bytes} bytes at ${offset} of ${total}, expected a vector of ${expectedBytes} bytes`,
    { fields: { op, source, offset, total, expectedBytes } },
  );
}
