import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { builtModule } from '../../common/built-module.ts';
import { CoveyError, type ErrorCode, throwIfAborted } from '../../common/errors.ts';
import { type EmbedProgress, shardsLeft } from '../../transfer/features/embed-dataset.ts';
import type { EmbeddingFolder } from '../../transfer/features/embedding-folder.ts';
import type { Dataset } from '../../worker/data/dataset.ts';
import { processEnvironment } from '../process-environment.ts';
import type { EmbedCommandOptions } from './embed.ts';
import { leftOut, type TransferSession } from './session.ts';

/** What a worker process is told: first the job, then one shard after the other. */
export type ToEmbedWorker =
  | {
      readonly job: {
        readonly source: string;
        readonly options: EmbedCommandOptions;
        readonly coordinator: string;
      };
    }
  | { readonly shard: number };

/** What it says. `ready` and `finished` ask for a shard. */
export type FromEmbedWorker =
  | { readonly ready: true }
  | { readonly pictures: number }
  | { readonly broken: { readonly sampleId: string; readonly reason: string } }
  | { readonly finished: number }
  | {
      readonly problem: {
        readonly code: ErrorCode;
        readonly message: string;
        readonly fields: Record<string, unknown>;
      };
    };

/** A worker that keeps dying is given up after so many deaths in a row, with no shard finished in between. */
const DEATHS_MAX = 3;
/** A worker hears of an end between two batches. */
const GRACE_MS = 5000;

interface Job {
  readonly source: string;
  readonly options: EmbedCommandOptions;
}

/**
 * Shares the unfinished shards out over worker processes, one at a time to whoever is free. A worker that dies is replaced, and its shard
 * given to another: a shard is only there when it is whole, so nothing is lost or doubled.
 * @throws CoveyError what a worker refused, UNAVAILABLE where workers keep dying, CANCELLED; no worker is left then
 */
export async function embedByWorkers(
  session: TransferSession,
  job: Job,
  { dataset, folder }: { readonly dataset: Dataset; readonly folder: EmbeddingFolder },
): Promise<EmbedProgress> {
  const { total, skipped, left } = await shardsLeft(dataset, folder, job.options.part);
  if (left.length > 0) {
    const waiting = left.map(({ index, samples }) => ({ index, samples }));
    await new EmbedPool(session, job, waiting, total - skipped).run();
  }
  return { done: total, total, skipped };
}

interface Shard {
  readonly index: number;
  readonly samples: number;
}

interface Worker {
  readonly child: ChildProcess;
  isReady: boolean;
  shard: Shard | undefined;
  /** Of its shard. */
  pictures: number;
}

class EmbedPool {
  readonly #session: TransferSession;
  readonly #job: Job;
  readonly #waiting: Shard[];
  readonly #total: number;
  readonly #report: ReturnType<TransferSession['progress']>;
  readonly #workers = new Set<Worker>();
  #done = 0;
  /** Since a shard was finished last. */
  #deaths = 0;
  #problem: CoveyError | undefined;

  constructor(session: TransferSession, job: Job, waiting: Shard[], total: number) {
    this.#session = session;
    this.#job = job;
    this.#waiting = waiting;
    this.#total = total;
    this.#report = session.progress('pictures');
  }

  async run(): Promise<void> {
    const { signal } = this.#session.context;
    throwIfAborted(signal);
    const onAbort = () => this.#end(CoveyError.from(signal.reason, 'CANCELLED'));
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      const places = Math.min(this.#job.options.workers ?? 1, this.#waiting.length);
      await Promise.all(Array.from({ length: places }, () => this.#holdPlace()));
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
    if (this.#problem !== undefined) throw this.#problem;
  }

  /** A worker, and another in its place where it died, for as long as a shard waits. */
  async #holdPlace(): Promise<void> {
    while (this.#waiting.length > 0 && this.#problem === undefined) await this.#runWorker();
  }

  #runWorker(): Promise<void> {
    const child = fork(fileURLToPath(builtModule('cli/transfer/embed-worker-process')), {
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
      // Its own process group: a Ctrl-C at the terminal goes to this process, which then ends its workers.
      detached: true,
      env: processEnvironment(process.env),
    });
    const worker: Worker = { child, isReady: false, shard: undefined, pictures: 0 };
    this.#workers.add(worker);
    child.on('message', (message) => this.#hear(worker, message as FromEmbedWorker));
    const { coordinator } = this.#session.context;
    // A worker that is gone before it hears this is known by its exit.
    child.send({ job: { ...this.#job, coordinator } } satisfies ToEmbedWorker, () => undefined);
    return new Promise((resolve) => {
      const settle = (how: string) => {
        if (!this.#workers.delete(worker)) return;
        if (worker.shard !== undefined || !worker.isReady) this.#mourn(worker, how);
        resolve();
      };
      child.once('exit', (code, signal) => settle(signal ?? `code ${code}`));
      child.once('error', (error) => settle(error.message));
    });
  }

  #hear(worker: Worker, message: FromEmbedWorker): void {
    if ('problem' in message) {
      const { code, message: text, fields } = message.problem;
      this.#end(new CoveyError(code, text, { fields }));
      return;
    }
    if ('broken' in message) {
      this.#session.context.output.warn(leftOut(message.broken.sampleId, message.broken.reason));
      return;
    }
    if ('pictures' in message) worker.pictures = message.pictures;
    if ('finished' in message) {
      this.#done += worker.shard?.samples ?? 0;
      this.#deaths = 0;
    }
    if ('ready' in message) worker.isReady = true;
    if (!('pictures' in message)) this.#giveShard(worker);
    if (!('ready' in message)) this.#say();
  }

  #giveShard(worker: Worker): void {
    worker.pictures = 0;
    worker.shard = this.#problem === undefined ? this.#waiting.shift() : undefined;
    if (worker.shard === undefined) worker.child.disconnect();
    else worker.child.send({ shard: worker.shard.index } satisfies ToEmbedWorker, () => undefined);
  }

  /** A worker died: its shard is another's. */
  #mourn({ shard }: Worker, how: string): void {
    if (shard !== undefined) this.#waiting.unshift(shard);
    if (this.#problem !== undefined) return;
    this.#deaths++;
    if (this.#deaths < DEATHS_MAX) {
      this.#session.say(`a worker ended with ${how}; another takes its place`);
      return;
    }
    this.#end(
      new CoveyError(
        'UNAVAILABLE',
        `Cannot go on: ${this.#deaths} workers in a row ended with ${how}; where memory is short use fewer with --workers; what is finished is kept, run the command again`,
        { fields: { how } },
      ),
    );
  }

  /** Ends every worker; `run` throws the first reason. */
  #end(reason: CoveyError): void {
    if (this.#problem !== undefined) return;
    this.#problem = reason;
    for (const { child } of this.#workers) {
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), GRACE_MS);
      child.once('exit', () => clearTimeout(timer));
    }
  }

  #say(): void {
    const workers = [...this.#workers];
    const done = workers.reduce((sum, { pictures }) => sum + pictures, this.#done);
    this.#report(done, this.#total, `${workers.length} workers`);
  }
}
