import { collectDefaultMetrics, Registry } from 'prom-client';
import { type Clock, systemClock } from '../common/clock.ts';
import type { Logger } from '../common/log.ts';
import type { ObjectStore } from '../common/objectstore/object-store.ts';
import { Coordinator } from './coordinator.ts';
import { listenHttp } from './http.ts';
import { createCoordinatorMetrics } from './metrics.ts';
import { GrpcServer } from './server.ts';

export interface StartCoordinatorOptions {
  /** Address to bind. Default 127.0.0.1. */
  readonly host?: string;
  /** gRPC port; 0 (default): any free one. */
  readonly port?: number;
  /** HTTP port for metrics and health; 0 (default): any free one. */
  readonly httpPort?: number;
  /** Told to workers that join. */
  readonly natsUrl: string;
  readonly coordinatorId?: string;
}

export interface StartCoordinatorModules {
  /** The default store; its runs are served again after a restart. The caller closes it, after the coordinator. */
  readonly store: ObjectStore;
  /** Opens the stores of runs that name another one. */
  readonly openStore?: (url: string) => ObjectStore;
  readonly logger: Logger;
  readonly clock?: Clock;
  /** Where metrics are registered. Default: a registry of its own, with the process's default metrics. */
  readonly registry?: Registry;
}

export interface RunningCoordinator {
  /** host:port */
  readonly grpcAddress: string;
  readonly httpUrl: string;
  readonly coordinator: Coordinator;
  /** Drains calls and closes both servers. HEAD is the truth: nothing has to be saved. */
  close(): Promise<void>;
}

/** Reads the runs of the store, then serves. Closes what it opened where a later step fails. */
export async function startCoordinator(
  options: StartCoordinatorOptions,
  modules: StartCoordinatorModules,
): Promise<RunningCoordinator> {
  const { store, openStore, logger } = modules;
  const clock = modules.clock ?? systemClock;
  const host = options.host ?? '127.0.0.1';
  const registry = modules.registry ?? new Registry();
  if (modules.registry === undefined) collectDefaultMetrics({ register: registry });
  const metrics = createCoordinatorMetrics(registry);
  const { natsUrl, coordinatorId } = options;
  const coordinator = new Coordinator(
    { natsUrl, ...(coordinatorId ? { coordinatorId } : {}) },
    { store, clock, logger, metrics, ...(openStore ? { openStore } : {}) },
  );
  const opened: (() => Promise<void>)[] = [() => coordinator.close()];
  let ready = false;
  const close = async () => {
    ready = false;
    for (const release of opened.splice(0).reverse()) await release();
  };
  try {
    const http = await listenHttp(
      { host, port: options.httpPort ?? 0 },
      { coordinator, registry, isReady: () => ready },
    );
    opened.push(http.close);
    await coordinator.start();
    const server = new GrpcServer({ host, port: options.port ?? 0 }, { coordinator, clock, logger, metrics });
    opened.push(() => server.close());
    const grpcAddress = await server.listen();
    ready = true;
    logger.info(
      { grpcAddress, httpUrl: http.url, coordinatorId: coordinator.coordinatorId, store: store.url },
      'coordinator serves',
    );
    return { grpcAddress, httpUrl: http.url, coordinator, close };
  } catch (thrown) {
    await close();
    throw thrown;
  }
}
