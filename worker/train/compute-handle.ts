import { Worker } from 'node:worker_threads';
import { builtModule } from '../../common/built-module.ts';
import { errorOf } from '../../common/error-record.ts';
import { CoveyError } from '../../common/errors.ts';
import type { ComputeAnswer, ComputeReplies, ComputeRequest, ComputeSetup } from './compute-protocol.ts';
import { CONTROL_EPOCH, CONTROL_WORDS } from './compute-protocol.ts';

export interface ComputeHandleOptions extends Omit<ComputeSetup, 'control'> {
  /** Ports to hand over with the setup. */
  readonly transfer: readonly import('node:worker_threads').MessagePort[];
}

interface Pending {
  resolve(value: unknown): void;
  reject(error: CoveyError): void;
}

/**
 * The main thread's hold on the compute thread: typed requests, answered in order. If the thread dies every pending and later
 * request rejects with INTERNAL. Closed by `close`.
 */
export class ComputeHandle {
  readonly #worker: Worker;
  readonly #control: Int32Array;
  readonly #pending = new Map<number, Pending>();
  #nextId = 1;
  #dead: CoveyError | undefined;

  constructor(options: ComputeHandleOptions) {
    this.#control = new Int32Array(new SharedArrayBuffer(4 * CONTROL_WORDS));
    const { transfer, ...setup } = options;
    this.#worker = new Worker(builtModule('worker/train/compute-thread'), {
      workerData: { ...setup, control: this.#control } satisfies ComputeSetup,
      transferList: [...transfer],
      name: 'covey-compute',
    });
    this.#worker.on('message', (answer: ComputeAnswer) => this.#settle(answer));
    this.#worker.on('error', (error) => this.#die(CoveyError.from(error)));
    this.#worker.on('exit', (code) =>
      this.#die(new CoveyError('INTERNAL', `the compute thread exited with code ${code}`)),
    );
  }

  /** The epoch steps must carry to be computed. */
  get epoch(): number {
    return Atomics.load(this.#control, CONTROL_EPOCH);
  }

  /** Drops every queued step that has not begun. The one in flight ends by itself once its collectives are aborted. */
  abandonQueued(): void {
    Atomics.add(this.#control, CONTROL_EPOCH, 1);
  }

  request<K extends ComputeRequest['kind']>(request: Extract<ComputeRequest, { kind: K }>): Promise<ComputeReplies[K]> {
    if (this.#dead) return Promise.reject(this.#dead);
    const id = this.#nextId++;
    return new Promise<ComputeReplies[K]>((resolve, reject) => {
      this.#pending.set(id, { resolve: resolve as (value: unknown) => void, reject });
      this.#worker.postMessage({ id, request });
    });
  }

  /** Resolves with the tensors that were left undisposed, one line per origin; always none unless the tensor debugger runs. */
  async close(): Promise<readonly string[]> {
    const leaks = this.#dead ? [] : await this.request({ kind: 'close' }).catch(() => []);
    await this.#worker.terminate();
    return leaks;
  }

  #settle(answer: ComputeAnswer): void {
    const pending = this.#pending.get(answer.id);
    if (!pending) return;
    this.#pending.delete(answer.id);
    if (answer.ok) pending.resolve(answer.value);
    else pending.reject(errorOf(answer.error));
  }

  #die(error: CoveyError): void {
    this.#dead ??= error;
    for (const pending of this.#pending.values()) pending.reject(this.#dead);
    this.#pending.clear();
  }
}
