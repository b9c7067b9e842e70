import { availableParallelism } from 'node:os';
import type { Clock } from '../../common/clock.ts';
import { CoveyError } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';
import { createProcessMetrics } from '../../common/metrics/create-metrics.ts';
import { startNatsServer } from '../../common/nats-server.ts';
import { openObjectStore } from '../../common/objectstore/open.ts';
import { startCoordinator } from '../../coordinator/main.ts';
import { buildIdentity } from '../package-version.ts';
import { SupervisedWorker } from './supervised-worker.ts';

export interface LocalClusterOptions {
  readonly workers: number;
  /** Store the coordinator keeps its runs in, URL. */
  readonly store: string;
  /** 0: a free port. */
  readonly port: number;
  /** Of /metrics, health and the JSON API; 0: a free port. */
  readonly httpPort: number;
  /** Use this server instead of starting one. */
  readonly natsUrl?: string;
  /** Threads of each worker. Default: the cores shared out, at least 1. */
  readonly threads?: number;
  readonly logFolder: string;
  /** More arguments for the `covey worker` of this index. */
  readonly workerArguments?: (index: number) => readonly string[];
}

export interface LocalClusterModules {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly env: Readonly<NodeJS.ProcessEnv>;
  readonly signal: AbortSignal;
  readonly onWorkerExit?: (index: number, code: number | null, signal: NodeJS.Signals | null) => void;
}

export interface LocalCluster {
  /** host:port for --coordinator. */
  readonly coordinatorAddress: string;
  readonly httpUrl: string;
  readonly natsUrl: string;
  readonly workers: readonly SupervisedWorker[];
  /** Drains the workers, then ends the coordinator and the NATS server. Safe to call twice. */
  close(): Promise<void>;
}

const WORKER_GRACE_MS = 35_000;

/**
 * A whole cluster on this machine: nats-server, coordinator (in this process), worker processes that are started again when they
 * crash. What it started it ends, in reverse order, also where starting fails half-way.
 */
export async function startLocalCluster(
  options: LocalClusterOptions,
  modules: LocalClusterModules,
): Promise<LocalCluster> {
  const { logger, clock, env, signal } = modules;
  const closers: (() => Promise<void>)[] = [];
  let closing: Promise<void> | undefined;
  const close = () => {
    closing ??= closeInReverse(closers);
    return closing;
  };
  try {
    const natsUrl = options.natsUrl ?? (await startOwnNats());
    const metrics = createProcessMetrics(buildIdentity(env));
    const openStore = (url: string) => openObjectStore(url, { env, logger, clock, metrics: metrics.store });
    const store = openStore(options.store);
    closers.push(() => store.close());
    const coordinator = await startCoordinator(
      { host: '127.0.0.1', port: options.port, httpPort: options.httpPort, natsUrl },
      { store, openStore, logger, clock, registry: metrics.registry },
    );
    closers.push(() => coordinator.close());
    const workers = startWorkers(options, modules, coordinator.grpcAddress);
    closers.push(async () => {
      await Promise.all(workers.map((worker) => worker.stop(WORKER_GRACE_MS)));
    });
    return { coordinatorAddress: coordinator.grpcAddress, httpUrl: coordinator.httpUrl, natsUrl, workers, close };
  } catch (thrown) {
    await close();
    throw thrown;
  }

  async function startOwnNats(): Promise<string> {
    const nats = await startNatsServer({}, { logger, signal });
    closers.push(() => nats.stop());
    return nats.url;
  }
}

/** Threads of each of so many local workers where nothing else is asked for: the cores shared out, at least 1. */
export function threadsOf(workers: number): number {
  return Math.max(1, Math.floor(availableParallelism() / Math.max(1, workers)));
}

function startWorkers(
  options: LocalClusterOptions,
  modules: LocalClusterModules,
  coordinator: string,
): SupervisedWorker[] {
  const threads = options.threads ?? threadsOf(options.workers);
  const common = [`--coordinator=${coordinator}`, `--threads=${threads}`, '--stay'];
  return Array.from({ length: options.workers }, (_, index) => {
    const { clock, logger, onWorkerExit } = modules;
    return new SupervisedWorker(
      {
        index,
        arguments: [...common, ...(options.workerArguments?.(index) ?? [])],
        logFolder: options.logFolder,
        restart: true,
      },
      { clock, logger, ...(onWorkerExit ? { onExit: onWorkerExit } : {}) },
    );
  });
}

/** All are closed, whatever one of them says; the first error is then thrown. */
async function closeInReverse(closers: (() => Promise<void>)[]): Promise<void> {
  const errors: CoveyError[] = [];
  for (const closeOne of closers.reverse())
    await closeOne().catch((thrown: unknown) => errors.push(CoveyError.from(thrown)));
  if (errors[0]) throw errors[0];
}
