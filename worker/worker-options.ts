import type { Clock } from '../common/clock.ts';
import type { RunConfig } from '../common/config/run-config.ts';
import type { Logger } from '../common/log.ts';
import type { ObjectStore } from '../common/objectstore/object-store.ts';
import type { TelemetryMetrics } from './telemetry.ts';

export interface WorkerOptions {
  /** host:port of the coordinator. */
  readonly coordinator: string;
  /** Run to join; empty: any that wants workers. */
  readonly run: string;
  /** Threads of the compute thread. Part of the determinism contract: the same count gives the same bits. */
  readonly threads: number;
  /** Engine of this worker, whatever the run's config says. Default: workers.engine of the config. */
  readonly engine?: RunConfig['workers']['engine'];
  /** Device of this worker, whatever the run's config says: `auto`, `cpu`, `cuda`, `cuda:1`. Default: workers.device of the config. */
  readonly device?: string;
  /** Number of this worker among those of its machine: they take the GPUs in turn. Default 0. */
  readonly workerNumber?: number;
  /** Relative speed; lanes are leased in proportion. Default 1. */
  readonly weight?: number;
  /** Overrides the coordinator's word where the tensor plane is reached under another name from here. */
  readonly natsUrl?: string;
  /** Shard cache. Default: data.cacheDir of the config, else a covey folder under the user's cache directory. */
  readonly cacheDir?: string;
  /** JSONL file of consumed samples; `{run}` in it stands for the run's name. */
  readonly sampleLog?: string;
}

export interface WorkerModules {
  readonly logger: Logger;
  readonly openStore: (url: string) => Promise<ObjectStore>;
  readonly clock?: Clock;
  readonly metrics?: TelemetryMetrics;
}
