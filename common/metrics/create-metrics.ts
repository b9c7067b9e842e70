import { collectDefaultMetrics, Registry } from 'prom-client';
import { type CheckpointMetrics, createCheckpointMetrics } from './checkpoint-metrics.ts';
import { createNatsMetrics, type NatsMetrics } from './nats-metrics.ts';
import { type Identity, registerIdentity } from './run-metrics.ts';
import { createStoreMetrics, type StoreMetrics } from './store-metrics.ts';
import { createWorkerMetrics, type WorkerMetrics } from './worker-metrics.ts';

/** What every process has: identity, process metrics, its object store. */
export interface ProcessMetrics {
  readonly registry: Registry;
  readonly store: StoreMetrics;
}

export interface WorkerProcessMetrics extends ProcessMetrics {
  readonly worker: WorkerMetrics;
  readonly nats: NatsMetrics;
  readonly checkpoint: CheckpointMetrics;
}

/**
 * A registry with what every process exports, prom-client's own metrics (event loop, memory, garbage collection) included. The
 * coordinator adds its groups to it (coordinator/metrics.ts). One registry per process; several in a test do not clash.
 */
export function createProcessMetrics(identity: Identity): ProcessMetrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  registerIdentity(registry, identity);
  return { registry, store: createStoreMetrics(registry) };
}

/** All metrics of a worker. Its parts take their group by injection, and work without it. */
export function createWorkerProcessMetrics(identity: Identity & { readonly run: string }): WorkerProcessMetrics {
  const shared = createProcessMetrics(identity);
  return {
    ...shared,
    worker: createWorkerMetrics(shared.registry),
    nats: createNatsMetrics(shared.registry),
    checkpoint: createCheckpointMetrics(shared.registry),
  };
}
