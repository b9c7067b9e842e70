import { crc32 } from 'node:zlib';
import { CoveyError } from '../../../common/errors.ts';
import type { Group } from '../collectives.ts';
import type { Frame } from './frame.ts';
import type { TransferPlane } from './transfer-plane.ts';

const HELLO_FIRST_MS = 25;
const HELLO_MS_MAX = 500;

/** What the members of a generation must agree on, and what each grants. */
interface Hello {
  readonly groupDigest: number;
  readonly chunkBytes: number;
  /** Bytes the sender of this hello lets each peer have in flight to it. */
  readonly grantBytes: number;
}

export interface HandshakeOptions {
  readonly group: Group;
  readonly chunkBytes: number;
  readonly grantBytes: number;
}

/**
 * Makes sure that nobody publishes to a peer that does not listen yet: hellos are repeated until every peer has answered, which
 * it does only once its own subscriptions stand. Stays to answer late hellos for as long as the generation lives.
 */
export class Handshake {
  readonly #options: HandshakeOptions;
  readonly #plane: TransferPlane;
  readonly #grants: number[];
  readonly #payload: Uint8Array;
  readonly #mine: Hello;
  readonly #unanswered: Set<number>;
  #timer: NodeJS.Timeout | undefined;
  #delayMs = HELLO_FIRST_MS;
  #onDone: () => void = () => {};
  #onMismatch: (error: CoveyError) => void = () => {};

  /** `grants` (by rank) is filled in as the peers' hellos arrive. */
  constructor(options: HandshakeOptions, modules: { plane: TransferPlane; grants: number[] }) {
    this.#options = options;
    this.#plane = modules.plane;
    this.#grants = modules.grants;
    const { group, chunkBytes, grantBytes } = options;
    this.#mine = { groupDigest: crc32(JSON.stringify([group.members, group.laneCount])), chunkBytes, grantBytes };
    this.#payload = Buffer.from(JSON.stringify(this.#mine));
    this.#unanswered = new Set(group.members.keys());
    this.#unanswered.delete(group.rank);
  }

  /** Member ids of the peers that have not answered. */
  unanswered(): string[] {
    return [...this.#unanswered].map((rank) => this.#options.group.members[rank]!.memberId);
  }

  start(onDone: () => void, onMismatch: (error: CoveyError) => void): void {
    this.#onDone = onDone;
    this.#onMismatch = onMismatch;
    if (this.#unanswered.size === 0) onDone();
    else this.#sayHello();
  }

  stop(): void {
    clearTimeout(this.#timer);
  }

  receive(frame: Frame, payload: Uint8Array): void {
    const theirs = JSON.parse(Buffer.from(payload).toString()) as Hello;
    const mismatch = this.#mismatch(frame.source, theirs);
    if (mismatch) {
      this.#onMismatch(mismatch);
      return;
    }
    this.#grants[frame.source] = theirs.grantBytes;
    if (frame.kind === 'h') this.#plane.control('w', frame.source, { op: '0' }, this.#payload);
    else if (this.#unanswered.delete(frame.source) && this.#unanswered.size === 0) {
      this.stop();
      this.#onDone();
    }
  }

  #sayHello(): void {
    for (const rank of this.#unanswered) this.#plane.control('h', rank, { op: '0' }, this.#payload);
    this.#timer = setTimeout(() => this.#sayHello(), this.#delayMs);
    this.#delayMs = Math.min(2 * this.#delayMs, HELLO_MS_MAX);
  }

  #mismatch(rank: number, theirs: Hello): CoveyError | undefined {
    const { groupDigest, chunkBytes } = this.#mine;
    if (theirs.groupDigest === groupDigest && theirs.chunkBytes === chunkBytes) return undefined;
    const { generation, members } = this.#options.group;
    return new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot enter generation ${generation}: ${members[rank]!.memberId} has another view of it: ` +
        (theirs.chunkBytes === chunkBytes
          ? 'other members or lanes'
          : `chunks of ${theirs.chunkBytes} bytes, here ${chunkBytes}`),
      { fields: { generation, memberId: members[rank]!.memberId, ours: { ...this.#mine }, theirs } },
    );
  }
}
