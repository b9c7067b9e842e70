import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import { errorOf } from '../../common/error-record.ts';
import { assert, CoveyError } from '../../common/errors.ts';
import {
  type ComputeCall,
  TICKET_DONE,
  TICKET_FAILED,
  TICKET_FREE,
  TICKET_LOST,
  TICKET_PENDING,
  type TicketFailure,
} from './comms-protocol.ts';

/** The compute thread's end of a comms thread: give it to that thread with `port` in the transfer list. */
export interface ComputeEnd {
  readonly port: MessagePort;
  readonly words: Int32Array;
  /** Upper limit of one `wait`, milliseconds: beyond every timeout of the comms thread, so that only a dead one reaches it. */
  readonly waitLimitMs: number;
}

/**
 * Collectives for a thread that computes synchronously. All arrays are views on SharedArrayBuffers. The work is done by the comms
 * thread; this side posts a request and sleeps on a shared word. Errors are those of `Collectives`, plus UNAVAILABLE when the
 * comms thread died and TIMEOUT when it does not answer.
 *
 * Call `enter(generation)` at the beginning of every step: what a step of an older generation asks for after that is refused with
 * ABORTED, even if the comms thread has entered a newer generation in the meantime.
 */
export class SyncCollectives {
  readonly #port: MessagePort;
  readonly #words: Int32Array;
  readonly #waitLimitMs: number;
  readonly #failures = new Map<number, CoveyError>();
  #generation: number | undefined;
  #nextTicket = 0;

  constructor(end: ComputeEnd) {
    this.#port = end.port;
    this.#words = end.words;
    this.#waitLimitMs = end.waitLimitMs;
  }

  /** Names the generation that the following operations belong to. Tickets of earlier steps nobody waited for are dropped. */
  enter(generation: number): void {
    this.#generation = generation;
    this.#readFailures();
    this.#failures.clear();
    for (let ticket = 0; ticket < this.#words.length; ticket++) {
      const word = Atomics.load(this.#words, ticket);
      if (word === TICKET_DONE || word === TICKET_FAILED) Atomics.store(this.#words, ticket, TICKET_FREE);
    }
  }

  /** Fills `out` (lanes × laneBytes) with every lane's block; this rank's own are in place already. */
  allGather(op: number, laneBytes: number, out: Uint8Array): void {
    this.wait(this.startAllGather(op, laneBytes, out));
  }

  /** Begins a gather; `out` belongs to the comms thread until it was waited for. */
  startAllGather(op: number, laneBytes: number, out: Uint8Array): number {
    return this.#post((ticket, generation) => ({
      kind: 'allGather',
      ticket,
      generation,
      op,
      laneBytes,
      out: checkShared(out),
    }));
  }

  /** Begins summing over all lanes in the fixed tree. `partials` must not change, nor `out` be read, until it was waited for. */
  startTreeAllReduce(op: number, partials: readonly Float32Array[], out: Float32Array): number {
    return this.#post((ticket, generation) => ({
      kind: 'treeAllReduce',
      ticket,
      generation,
      op,
      partials: partials.map(checkShared),
      out: checkShared(out),
    }));
  }

  /** Blocks until the operation is done; throws its error. With several, waits for all before it throws the first error. */
  wait(tickets: number | readonly number[]): void {
    let failure: CoveyError | undefined;
    for (const ticket of typeof tickets === 'number' ? [tickets] : tickets) {
      const error = this.#settle(ticket);
      failure ??= error;
    }
    if (failure) throw failure;
  }

  #post(call: (ticket: number, generation: number) => ComputeCall): number {
    if (this.#generation === undefined) {
      throw new CoveyError(
        'INTERNAL',
        'Cannot start a collective: no generation was named; call enter(generation) first',
      );
    }
    const ticket = this.#freeTicket();
    const message = call(ticket, this.#generation);
    Atomics.store(this.#words, ticket, TICKET_PENDING);
    this.#port.postMessage(message);
    return ticket;
  }

  #freeTicket(): number {
    for (let tried = 0; tried < this.#words.length; tried++) {
      const ticket = this.#nextTicket;
      this.#nextTicket = (this.#nextTicket + 1) % this.#words.length;
      const word = Atomics.load(this.#words, ticket);
      if (word === TICKET_FREE) return ticket;
      if (word === TICKET_LOST) throw lostError();
    }
    throw new CoveyError(
      'RESOURCE_EXHAUSTED',
      `Cannot start a collective: ${this.#words.length} are in flight; wait for some first`,
      {
        fields: { tickets: this.#words.length },
      },
    );
  }

  #settle(ticket: number): CoveyError | undefined {
    if (Atomics.wait(this.#words, ticket, TICKET_PENDING, this.#waitLimitMs) === 'timed-out') {
      return new CoveyError('TIMEOUT', `the comms thread did not answer within ${this.#waitLimitMs} ms`, {
        fields: { waitingFor: ['comms thread'] },
      });
    }
    const word = Atomics.load(this.#words, ticket);
    if (word === TICKET_LOST) return lostError();
    assert(word === TICKET_DONE || word === TICKET_FAILED, 'a ticket is waited for once', { ticket, word });
    Atomics.store(this.#words, ticket, TICKET_FREE);
    if (word === TICKET_DONE) return undefined;
    this.#readFailures();
    const error = this.#failures.get(ticket);
    this.#failures.delete(ticket);
    // The error is posted before its word is set; a port that closed in between takes it along.
    return error ?? lostError();
  }

  #readFailures(): void {
    for (let received = receiveMessageOnPort(this.#port); received; received = receiveMessageOnPort(this.#port)) {
      const { ticket, error } = received.message as TicketFailure;
      this.#failures.set(ticket, errorOf(error));
    }
  }
}

function lostError(): CoveyError {
  return new CoveyError('UNAVAILABLE', 'the comms thread died', { fields: { waitingFor: ['comms thread'] } });
}

function checkShared<T extends Uint8Array | Float32Array>(array: T): T {
  if (!(array.buffer instanceof SharedArrayBuffer)) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      'Cannot hand an array to the comms thread: it is not on a SharedArrayBuffer',
      {
        fields: { bytes: array.byteLength },
      },
    );
  }
  return array;
}
