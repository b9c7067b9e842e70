import { MessageChannel, Worker } from 'node:worker_threads';
import { builtModule } from '../../common/built-module.ts';
import { errorOf } from '../../common/error-record.ts';
import { CoveyError } from '../../common/errors.ts';
import type { Logger, LogOptions } from '../../common/log.ts';
import type { CollectiveStats } from './collective-stats.ts';
import type { CallOptions, Group } from './collectives.ts';
import {
  type CommsAnswer,
  type CommsReplies,
  type CommsRequest,
  type CommsSetup,
  TICKET_COUNT,
  TICKET_LOST,
  TICKET_PENDING,
} from './comms-protocol.ts';
import type { NatsCollectivesOptions } from './nats/nats-collectives.ts';
import type { ComputeEnd } from './sync-collectives.ts';

export interface CommsThreadOptions extends NatsCollectivesOptions {
  readonly natsUrl: string;
  /** Shown in the NATS server's connection list. Default `covey-tensors`. */
  readonly name?: string;
  /** How the thread logs: the options of the main thread's logger. */
  readonly log?: LogOptions;
}

/** Beyond the collectives' own limit: only a comms thread that hangs is waited for this long. */
const WAIT_LIMIT_EXTRA_MS = 10_000;
const CLOSE_GRACE_MS = 3000;

interface Pending {
  resolve(value: unknown): void;
  reject(error: CoveyError): void;
}

/**
 * Starts the comms thread and connects it. Throws UNAVAILABLE when NATS cannot be reached, UNSUPPORTED when covey is not built.
 */
export async function startCommsThread(options: CommsThreadOptions, modules: { logger: Logger }): Promise<CommsThread> {
  const thread = new CommsThread(options, modules.logger);
  try {
    await thread.started;
  } catch (thrown) {
    await thread.close();
    throw thrown;
  }
  return thread;
}

/** The main thread's hold on the comms thread. `close` ends it. */
export class CommsThread {
  /** For the compute thread: pass it in `workerData` with `compute.port` in the transfer list, once. */
  readonly compute: ComputeEnd;
  /** Resolves once connected. */
  readonly started: Promise<void>;
  readonly #worker: Worker;
  readonly #logger: Logger;
  readonly #pending = new Map<number, Pending>();
  readonly #exited: Promise<void>;
  #nextId = 1;
  #dead: CoveyError | undefined;
  #closing = false;

  constructor(options: CommsThreadOptions, logger: Logger) {
    const { natsUrl, name = 'covey-tensors', log = {}, ...collectives } = options;
    const channel = new MessageChannel();
    const words = new Int32Array(new SharedArrayBuffer(4 * TICKET_COUNT));
    const waitLimitMs = (collectives.timeoutMs ?? 60_000) + WAIT_LIMIT_EXTRA_MS;
    this.compute = { port: channel.port2, words, waitLimitMs };
    this.#logger = logger;
    this.#worker = new Worker(builtModule('worker/collectives/comms-thread'), {
      workerData: { natsUrl, name, collectives, log, computePort: channel.port1, words } satisfies CommsSetup,
      transferList: [channel.port1],
      name: 'covey-comms',
    });
    this.started = new Promise<void>((resolve, reject) => this.#pending.set(0, { resolve: () => resolve(), reject }));
    this.#worker.on('message', (answer: CommsAnswer) => this.#settle(answer));
    this.#worker.on('error', (error) => this.#die(CoveyError.from(error)));
    this.#exited = new Promise((resolve) => {
      this.#worker.on('exit', (code) => {
        this.#die(new CoveyError('UNAVAILABLE', `the comms thread exited with code ${code}`));
        resolve();
      });
    });
  }

  /** Enters a generation; see `Collectives.configure`. */
  async configure(group: Group, options: CallOptions = {}): Promise<void> {
    await this.#withSignal(options.signal, this.#request({ kind: 'configure', group, timeoutMs: options.timeoutMs }));
  }

  /** Rejects everything in flight with ABORTED, the compute thread's operations included. */
  async abort(reason: string): Promise<void> {
    await this.#request({ kind: 'abort', reason });
  }

  /** Serves shared memory to peers until the next `configure` or `abort`; it must not change meanwhile. */
  async serveState(state: Uint8Array): Promise<void> {
    await this.#request({ kind: 'serveState', state: shared(state) });
  }

  /** Copies a peer's state into shared memory. */
  async fetchState(memberId: string, into: Uint8Array, options: CallOptions = {}): Promise<void> {
    await this.#withSignal(
      options.signal,
      this.#request({ kind: 'fetchState', memberId, into: shared(into), timeoutMs: options.timeoutMs }),
    );
  }

  stats(): Promise<CollectiveStats> {
    return this.#request({ kind: 'stats' });
  }

  /** Aborts what is in flight, disconnects, ends the thread. Safe to call twice. */
  async close(): Promise<void> {
    this.#closing = true;
    if (!this.#dead) {
      // A thread that hangs is ended anyway.
      let grace: NodeJS.Timeout | undefined;
      const expired = new Promise<void>((resolve) => {
        grace = setTimeout(resolve, CLOSE_GRACE_MS);
      });
      await Promise.race([
        this.#request({ kind: 'close' }).then(
          () => this.#exited,
          () => undefined,
        ),
        expired,
      ]);
      clearTimeout(grace);
    }
    await this.#worker.terminate();
    this.compute.port.close();
  }

  #request<K extends CommsRequest['kind']>(request: Extract<CommsRequest, { kind: K }>): Promise<CommsReplies[K]> {
    if (this.#dead) return Promise.reject(this.#dead);
    const id = this.#nextId++;
    return new Promise<CommsReplies[K]>((resolve, reject) => {
      this.#pending.set(id, { resolve: resolve as (value: unknown) => void, reject });
      this.#worker.postMessage({ id, request });
    });
  }

  /** A cancelled call aborts the generation: its half-done work is of no use to anybody. */
  async #withSignal(signal: AbortSignal | undefined, request: Promise<unknown>): Promise<void> {
    const onAbort = () => void this.abort('cancelled').catch(() => undefined);
    if (signal?.aborted) onAbort();
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      await request;
    } catch (thrown) {
      if (signal?.aborted) throw CoveyError.from(signal.reason, 'CANCELLED');
      throw thrown;
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  #settle(answer: CommsAnswer): void {
    const pending = this.#pending.get(answer.id);
    this.#pending.delete(answer.id);
    if (!pending) return;
    if ('error' in answer) pending.reject(errorOf(answer.error));
    else pending.resolve(answer.value);
  }

  #die(error: CoveyError): void {
    if (this.#dead) return;
    this.#dead = error;
    if (!this.#closing) this.#logger.error({ err: error }, 'the comms thread died');
    for (const pending of this.#pending.values()) pending.reject(error);
    this.#pending.clear();
    const { words } = this.compute;
    for (let ticket = 0; ticket < words.length; ticket++) {
      Atomics.compareExchange(words, ticket, TICKET_PENDING, TICKET_LOST);
      // Free words too: the next request must not wait for a thread that is gone.
      Atomics.compareExchange(words, ticket, 0, TICKET_LOST);
      Atomics.notify(words, ticket);
    }
  }
}

function shared(bytes: Uint8Array): Uint8Array {
  if (bytes.buffer instanceof SharedArrayBuffer) return bytes;
  throw new CoveyError(
    'INVALID_ARGUMENT',
    'Cannot hand bytes to the comms thread: they are not on a SharedArrayBuffer',
  );
}
