import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { builtModule } from '../../common/built-module.ts';
import type { Clock } from '../../common/clock.ts';
import type { Logger } from '../../common/log.ts';
import { processEnvironment } from '../process-environment.ts';

/** A worker that keeps crashing is started again ever more slowly, and given up after this many crashes in a row. */
const CRASHES_MAX = 5;
const RESTART_PAUSE_MIN_MS = 500;
/** A worker that lived this long is not "crashing in a row". */
const STEADY_AFTER_MS = 60_000;

export interface SupervisedWorkerOptions {
  /** Names the log file; not the slot, which the coordinator gives out. */
  readonly index: number;
  /** Arguments after `covey worker`. */
  readonly arguments: readonly string[];
  readonly logFolder: string;
  /** Start again after a crash. */
  readonly restart: boolean;
}

export interface SupervisedWorkerModules {
  readonly clock: Clock;
  readonly logger: Logger;
  /** Told when the process ended without being asked to. */
  readonly onExit?: (index: number, code: number | null, signal: NodeJS.Signals | null) => void;
}

/**
 * One `covey worker` process, started again when it crashes. It ends when this process does, even by SIGKILL: the worker watches its
 * standard input, which the kernel closes.
 */
export class SupervisedWorker {
  readonly logFile: string;
  readonly #options: SupervisedWorkerOptions;
  readonly #modules: SupervisedWorkerModules;
  readonly #stopped = new AbortController();
  #child: ChildProcess | undefined;
  readonly #finished: Promise<void>;

  constructor(options: SupervisedWorkerOptions, modules: SupervisedWorkerModules) {
    this.#options = options;
    this.#modules = modules;
    mkdirSync(options.logFolder, { recursive: true });
    this.logFile = path.join(options.logFolder, `worker-${options.index}.log`);
    this.#finished = this.#supervise();
  }

  /** Undefined between two starts. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Resolves when the worker has ended for good: its work was done, it was stopped, or it crashed too often. */
  get finished(): Promise<void> {
    return this.#finished;
  }

  /** SIGTERM, so that it drains; after `graceMs` SIGKILL. Safe to call twice. */
  async stop(graceMs: number): Promise<void> {
    this.#stopped.abort();
    this.#child?.kill('SIGTERM');
    const timer = setTimeout(() => this.#child?.kill('SIGKILL'), graceMs);
    await this.#finished;
    clearTimeout(timer);
  }

  /** Sends a signal to the process as it is now; false where there is none. */
  kill(signal: NodeJS.Signals): boolean {
    return this.#child?.kill(signal) ?? false;
  }

  async #supervise(): Promise<void> {
    const { clock, logger, onExit } = this.#modules;
    const { index, restart } = this.#options;
    for (let crashes = 0; !this.#stopped.signal.aborted; ) {
      const startedAtMs = clock.now();
      const { code, signal } = await this.#runOnce();
      if (this.#stopped.signal.aborted || code === 0) return;
      onExit?.(index, code, signal);
      crashes = clock.now() - startedAtMs > STEADY_AFTER_MS ? 1 : crashes + 1;
      if (!restart) return;
      if (crashes > CRASHES_MAX) {
        logger.error({ worker: index, crashes, logFile: this.logFile }, 'worker keeps crashing; given up');
        return;
      }
      logger.warn({ worker: index, code, signal, crashes }, 'worker ended; starting it again');
      await clock.sleep(RESTART_PAUSE_MIN_MS * 2 ** (crashes - 1), this.#stopped.signal).catch(() => undefined);
    }
  }

  #runOnce(): Promise<{ code: number | null; signal: NodeJS.Signals | null }> {
    const log = openSync(this.logFile, 'a');
    const child = spawn(
      process.execPath,
      [fileURLToPath(builtModule('cli/main')), 'worker', ...this.#options.arguments],
      {
        stdio: ['pipe', log, log],
        // Its own process group: a Ctrl-C at the terminal goes to the cluster's owner, which then drains the workers in order.
        detached: true,
        env: {
          ...processEnvironment(process.env),
          COVEY_EXIT_WITH_STDIN: '1',
          COVEY_WORKER_NUMBER: String(this.#options.index),
        },
      },
    );
    closeSync(log);
    this.#child = child;
    return new Promise((resolve) => {
      const settle = (code: number | null, signal: NodeJS.Signals | null) => {
        this.#child = undefined;
        resolve({ code, signal });
      };
      child.once('exit', settle);
      child.once('error', (error) => {
        this.#modules.logger.error({ worker: this.#options.index, reason: error.message }, 'worker cannot be started');
        settle(1, null);
      });
    });
  }
}
