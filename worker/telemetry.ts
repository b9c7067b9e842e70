import { boundedLabel } from '../common/metrics/bounded.ts';
import type { CheckpointMetrics } from '../common/metrics/checkpoint-metrics.ts';
import type { NatsMetrics } from '../common/metrics/nats-metrics.ts';
import {
  BAD_SAMPLE_REASONS,
  type DISCARD_REASONS,
  type TIME_BUCKETS,
  type WorkerMetrics,
} from '../common/metrics/worker-metrics.ts';
import type { CollectiveStats } from './collectives/collective-stats.ts';
import type { LaneLoaderMetrics } from './data/lane-loader.ts';
import type { ShardCacheMetrics } from './data/shard-cache.ts';
import type { AppliedStep, LoadedStep } from './train/step-loop.ts';

export interface TelemetryMetrics {
  readonly worker: WorkerMetrics;
  readonly nats: NatsMetrics;
  readonly checkpoint: CheckpointMetrics;
}

export type TimeBucket = (typeof TIME_BUCKETS)[number];

/** How often the comms thread is asked for its counters. */
const STATS_INTERVAL_MS = 5_000;

/** Turns what happens in a worker into metrics. Without metrics every call is a no-op, so nobody asks twice. */
export class Telemetry {
  readonly #metrics: TelemetryMetrics | undefined;
  #bucket: TimeBucket = 'init';
  #bucketSince = performance.now();
  #seen: CollectiveStats | undefined;
  readonly #fallbackCalls = new Map<string, number>();
  #polling: NodeJS.Timeout | undefined;

  constructor(metrics: TelemetryMetrics | undefined) {
    this.#metrics = metrics;
  }

  /** From now on the time counts for `bucket`; goodput is productive over all. */
  enter(bucket: TimeBucket): void {
    const now = performance.now();
    this.#metrics?.worker.timeSeconds.inc({ bucket: this.#bucket }, (now - this.#bucketSince) / 1000);
    this.#bucket = bucket;
    this.#bucketSince = now;
  }

  applied({ loaded, reply, dataSeconds }: AppliedStep, queuedSamples: number): void {
    const worker = this.#metrics?.worker;
    if (!worker) return;
    this.enter(this.#bucket);
    for (const [phase, seconds] of Object.entries(reply.phaseSeconds)) worker.phaseSeconds.inc({ phase }, seconds);
    worker.phaseSeconds.inc({ phase: 'data' }, dataSeconds);
    worker.stepsComputed.inc({ result: reply.skipped ? 'skipped' : 'applied' });
    if (reply.skipped) this.discarded(loaded, 'non_finite');
    else {
      for (const [dataset, count] of Object.entries(loaded.samplesByDataset))
        worker.datasetSamples.inc({ dataset }, count);
    }
    worker.modelFlops.inc(reply.modelFlops);
    worker.prefetchQueueSamples.set(queuedSamples);
    worker.peakMemoryBytes.set(reply.engineMemory.peakBytes);
    worker.liveMemoryBytes.set(reply.engineMemory.liveBytes);
    worker.tensors.set(reply.engineMemory.tensors);
    for (const { kernel, calls } of reply.engineFallback.uses) {
      // A compute thread that was started anew counts from 0 again.
      const seen = this.#fallbackCalls.get(kernel) ?? 0;
      worker.engineFallbackCalls.inc({ kernel }, calls < seen ? calls : calls - seen);
      this.#fallbackCalls.set(kernel, calls);
    }
  }

  /** This worker's samples of a step that changed no weights. */
  discarded({ samplesByDataset }: LoadedStep, reason: (typeof DISCARD_REASONS)[number]): void {
    const samples = Object.values(samplesByDataset).reduce((sum, count) => sum + count, 0);
    this.#metrics?.worker.samplesDiscarded.inc({ reason }, samples);
  }

  readonly pictureMetrics: LaneLoaderMetrics = {
    sampleBad: (reason) => this.#metrics?.worker.samplesBad.inc({ reason: boundedLabel(reason, BAD_SAMPLE_REASONS) }),
    pictureMade: (seconds, decoded) => {
      this.#metrics?.worker.decodeSeconds.inc(seconds);
      if (decoded) this.#metrics?.worker.samplesDecoded.inc();
    },
  };

  readonly cacheMetrics: ShardCacheMetrics = {
    request: (result) => this.#metrics?.worker.cacheRequests.inc({ result }),
    eviction: () => this.#metrics?.worker.cacheEvictions.inc(),
    size: (bytes) => this.#metrics?.worker.cacheBytes.set(bytes),
  };

  /** @param samples that go through the model at once */
  microBatch(samples: number): void {
    this.#metrics?.worker.microBatchSamples.set(samples);
  }

  cacheLimit(bytes: number): void {
    this.#metrics?.worker.cacheLimitBytes.set(bytes);
  }

  checkpoint(outcome: {
    readonly ok: boolean;
    readonly seconds: Readonly<Record<string, number>>;
    readonly bytes: number;
    readonly step: number;
  }): void {
    const checkpoint = this.#metrics?.checkpoint;
    if (!checkpoint) return;
    checkpoint.total.inc({ result: outcome.ok ? 'ok' : 'failed' });
    for (const [phase, seconds] of Object.entries(outcome.seconds)) checkpoint.seconds.observe({ phase }, seconds);
    if (!outcome.ok) return;
    checkpoint.bytes.set(outcome.bytes);
    checkpoint.lastStep.set(outcome.step);
    checkpoint.lastSuccessTimestamp.setToCurrentTime();
  }

  /** Asks the comms thread for its counters from time to time; ends with `close`. */
  follow(stats: () => Promise<CollectiveStats>): void {
    if (!this.#metrics) return;
    this.#polling = setInterval(
      () =>
        void stats().then(
          (now) => this.#count(now),
          () => undefined,
        ),
      STATS_INTERVAL_MS,
    );
    this.#polling.unref();
  }

  close(): void {
    clearInterval(this.#polling);
    this.enter('idle');
  }

  #count(now: CollectiveStats): void {
    const nats = this.#metrics?.nats;
    if (!nats) return;
    const before = this.#seen;
    const grown = (read: (stats: CollectiveStats) => number) => Math.max(0, read(now) - (before ? read(before) : 0));
    nats.bytes.inc(
      { direction: 'out', kind: 'all' },
      grown((stats) => stats.bytesSent),
    );
    nats.bytes.inc(
      { direction: 'in', kind: 'all' },
      grown((stats) => stats.bytesReceived),
    );
    nats.gaps.inc(grown((stats) => stats.gaps));
    nats.retransmits.inc(grown((stats) => stats.retransmits));
    nats.disconnects.inc(grown((stats) => stats.disconnects));
    nats.crcErrors.inc(grown((stats) => stats.corrupt));
    nats.staleFrames.inc(grown((stats) => stats.stale));
    for (const [op, label] of [
      ['allGather', 'all_gather'],
      ['treeAllReduce', 'all_reduce'],
      ['fetchState', 'state'],
    ] as const) {
      const count = grown((stats) => stats.operations[op].count);
      const seconds = grown((stats) => stats.operations[op].seconds);
      // The thread reports totals: each operation of the interval is entered with the interval's mean.
      for (let i = 0; i < count; i++) nats.collectiveSeconds.observe({ op: label }, seconds / count);
    }
    this.#seen = { ...now, operations: structuredClone(now.operations) };
  }
}
