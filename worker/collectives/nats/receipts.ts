import type { IncomingTransfer } from './transfers.ts';

/** Receipts of transfers up to this size wait for company; their senders keep a copy and wait for nobody. */
export const SMALL_BYTES = 64 * 1024;
const LAZY_MS = 15;

/** What this rank owes its senders: told in batches, at once where a sender waits for it. */
export class Receipts {
  readonly #send: (source: number, payload: Uint8Array) => void;
  #due: Set<IncomingTransfer>[] = [];
  #unacknowledgedBytes: number[] = [];
  #grant = 0;
  #lazy: NodeJS.Timeout | undefined;

  constructor(send: (source: number, payload: Uint8Array) => void) {
    this.#send = send;
  }

  /** Forgets everything. `grant`: bytes each of `world` sources may have in flight. */
  reset(world: number, grant: number): void {
    this.#due = Array.from({ length: world }, () => new Set<IncomingTransfer>());
    this.#unacknowledgedBytes = new Array<number>(world).fill(0);
    this.#grant = grant;
    clearTimeout(this.#lazy);
    this.#lazy = undefined;
  }

  /** Something of a transfer arrived. Told at once when a large transfer is done or much of the source's credit is used. */
  note(transfer: IncomingTransfer): void {
    const { source, target } = transfer.spec;
    const bytes = transfer.received - transfer.acknowledged;
    if (bytes === 0) return;
    this.#due[source]!.add(transfer);
    this.#unacknowledgedBytes[source]! += bytes - transfer.owed;
    transfer.owed = bytes;
    const urgent = transfer.complete && target.byteLength > SMALL_BYTES;
    if (urgent || this.#unacknowledgedBytes[source]! >= this.#grant / 4) this.#tell(source);
    else this.#lazy ??= setTimeout(() => this.#tellAll(), LAZY_MS);
  }

  #tellAll(): void {
    this.#lazy = undefined;
    for (let source = 0; source < this.#due.length; source++) this.#tell(source);
  }

  #tell(source: number): void {
    const due = this.#due[source]!;
    if (due.size === 0) return;
    const lines: string[] = [];
    for (const transfer of due) {
      lines.push(`${transfer.spec.op} ${transfer.spec.part} ${transfer.received}`);
      transfer.acknowledged = transfer.received;
      transfer.owed = 0;
    }
    due.clear();
    this.#unacknowledgedBytes[source] = 0;
    this.#send(source, Buffer.from(lines.join('\n')));
  }
}
