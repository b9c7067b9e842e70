import { createHash } from 'node:crypto';
import { CoveyError } from '../../../common/errors.ts';
import type { Frame } from './frame.ts';
import { stateOp } from './op-names.ts';
import type { PendingOp } from './pending-op.ts';
import type { TransferPlane } from './transfer-plane.ts';

/** How often a request is repeated until it is answered: the peer may be about to serve. */
const REQUEST_MS = 300;
/** Hashing gives way to messages after this many bytes. */
const HASH_BYTES = 4 * 2 ** 20;

type Info = { readonly sha256: string } | { readonly error: string };

interface Fetch {
  readonly pending: PendingOp;
  readonly into: Uint8Array;
  info: Info | undefined;
  onInfo: () => void;
}

/** Healing: a rank's state, byte for byte, to whoever asks for it, checked by SHA-256 at the receiver. */
export class StateTransfer {
  readonly #plane: TransferPlane;
  readonly #fetches = new Map<string, Fetch>();
  readonly #serving = new Set<string>();
  #state: Uint8Array | undefined;
  #digest: Promise<string> | undefined;
  #count = 0;

  constructor(plane: TransferPlane) {
    this.#plane = plane;
  }

  serve(state: Uint8Array): void {
    this.stop();
    this.#state = state;
  }

  stop(): void {
    for (const op of this.#serving) this.#plane.release(op, 'failed');
    this.#serving.clear();
    this.#state = undefined;
    this.#digest = undefined;
  }

  nextOp(rank: number): string {
    return stateOp(rank, this.#count++);
  }

  /** Asks rank `source` for its state under the name `op`; `pending` completes once the bytes are there and their hash is right. */
  fetch(op: string, source: number, into: Uint8Array, pending: PendingOp): void {
    const received = pending.hold();
    const verified = pending.hold();
    const fetch: Fetch = { pending, into, info: undefined, onInfo: pending.hold() };
    this.#fetches.set(op, fetch);
    this.#plane.expect({
      op,
      part: 0,
      source,
      target: into,
      onComplete: () => {
        received();
        void hashOf(into).then((sha256) => {
          this.#whenInformed(fetch, () => {
            const expected = fetch.info && 'sha256' in fetch.info ? fetch.info.sha256 : undefined;
            if (sha256 === expected) verified();
            else {
              const message = `Cannot take the state of rank ${source}: its hash is ${sha256}, announced was ${expected}`;
              pending.reject(new CoveyError('DATA_CORRUPT', message, { fields: { source, sha256, expected } }));
            }
          });
        });
      },
      onMisfit: (error) => pending.reject(error),
    });
    const ask = () => {
      if (pending.ended || fetch.info) return;
      this.#plane.control('f', source, { op, total: into.byteLength });
      setTimeout(ask, REQUEST_MS);
    };
    ask();
  }

  /** Forgets a fetch that ended. */
  forget(op: string): void {
    this.#fetches.delete(op);
  }

  receive(frame: Frame, payload: Uint8Array): void {
    if (frame.kind === 'f') this.#onRequest(frame);
    else if (frame.kind === 'i') this.#onInfo(frame, payload);
  }

  #onRequest(frame: Frame): void {
    const state = this.#state;
    if (!state) return;
    const inform = (info: Info) =>
      this.#plane.control('i', frame.source, { op: frame.op }, Buffer.from(JSON.stringify(info)));
    if (frame.total !== state.byteLength) {
      inform({ error: `the state served has ${state.byteLength} bytes, asked for ${frame.total}` });
      return;
    }
    this.#digest ??= hashOf(state);
    void this.#digest.then((sha256) => inform({ sha256 }));
    if (this.#serving.has(frame.op) || this.#plane.hasEnded(frame.op)) return;
    this.#serving.add(frame.op);
    this.#plane.send({
      op: frame.op,
      part: 0,
      destinations: [frame.source],
      bytes: state,
      ready: true,
      onReceipts: () => {
        this.#serving.delete(frame.op);
        this.#plane.release(frame.op, 'complete');
      },
    });
  }

  #onInfo(frame: Frame, payload: Uint8Array): void {
    const fetch = this.#fetches.get(frame.op);
    if (!fetch || fetch.info) return;
    fetch.info = JSON.parse(Buffer.from(payload).toString()) as Info;
    if ('error' in fetch.info) {
      fetch.pending.reject(
        new CoveyError('INVALID_ARGUMENT', `Cannot fetch the state of rank ${frame.source}: ${fetch.info.error}`, {
          fields: { source: frame.source, bytes: fetch.into.byteLength },
        }),
      );
      return;
    }
    fetch.onInfo();
  }

  #whenInformed(fetch: Fetch, then: () => void): void {
    if (fetch.info) then();
    else {
      const informed = fetch.onInfo;
      fetch.onInfo = () => {
        informed();
        then();
      };
    }
  }
}

/** SHA-256 in hex, letting messages through between pieces. */
async function hashOf(bytes: Uint8Array): Promise<string> {
  const hash = createHash('sha256');
  for (let at = 0; at < bytes.byteLength; at += HASH_BYTES) {
    hash.update(bytes.subarray(at, at + HASH_BYTES));
    await new Promise((resolve) => setImmediate(resolve));
  }
  return hash.digest('hex');
}
