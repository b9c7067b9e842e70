import { Counter, Gauge, type Registry } from 'prom-client';

export const STEP_PHASES = ['data', 'forward', 'gather', 'backward', 'reduce', 'optim', 'wait', 'ckpt'] as const;
export type StepPhase = (typeof STEP_PHASES)[number];
export const BAD_SAMPLE_REASONS = [
  'zero-byte',
  'not-an-image',
  'too-many-pixels',
  'undecodable',
  'label-missing',
  'label-unknown',
  'caption-missing',
] as const;
export const CACHE_RESULTS = ['hit', 'miss', 'in_place'] as const;
export const DISCARD_REASONS = ['aborted', 'non_finite'] as const;
export const TIME_BUCKETS = [
  'productive',
  'init',
  'rendezvous',
  'data_stall',
  'ckpt_save',
  'ckpt_load',
  'lost_work',
  'recovery',
  'idle',
] as const;

/** What a worker knows about its own steps and data. The scrape target names the worker; no label does. */
export interface WorkerMetrics {
  readonly phaseSeconds: Counter<'phase'>;
  readonly stepsComputed: Counter<'result'>;
  /** Where this worker's time went; goodput = productive / all. */
  readonly timeSeconds: Counter<'bucket'>;
  readonly samplesDiscarded: Counter<'reason'>;
  readonly samplesBad: Counter<'reason'>;
  /** The datasets of a run's mixture, of which there are at most 64. */
  readonly datasetSamples: Counter<'dataset'>;
  readonly cacheBytes: Gauge;
  readonly cacheLimitBytes: Gauge;
  readonly cacheRequests: Counter<'result'>;
  readonly cacheEvictions: Counter;
  readonly prefetchQueueSamples: Gauge;
  readonly samplesDecoded: Counter;
  readonly decodeSeconds: Counter;
  readonly modelFlops: Counter;
  readonly peakMemoryBytes: Gauge;
  readonly liveMemoryBytes: Gauge;
  readonly tensors: Gauge;
  readonly microBatchSamples: Gauge;
  readonly engineFallbackCalls: Counter<'kernel'>;
}

export function createWorkerMetrics(registry: Registry): WorkerMetrics {
  const registers = [registry];
  return {
    phaseSeconds: new Counter({
      name: 'covey_step_phase_seconds_total',
      help: 'Time in each phase of a step',
      labelNames: ['phase'],
      registers,
    }),
    stepsComputed: new Counter({
      name: 'covey_worker_steps_total',
      help: 'Steps this worker took part in',
      labelNames: ['result'],
      registers,
    }),
    timeSeconds: new Counter({
      name: 'covey_time_seconds_total',
      help: 'Where the time went; goodput = productive / all',
      labelNames: ['bucket'],
      registers,
    }),
    samplesDiscarded: new Counter({
      name: 'covey_samples_discarded_total',
      help: 'Samples computed in steps that were not committed',
      labelNames: ['reason'],
      registers,
    }),
    samplesBad: new Counter({
      name: 'covey_samples_bad_total',
      help: 'Broken samples that this worker met, each once',
      labelNames: ['reason'],
      registers,
    }),
    datasetSamples: new Counter({
      name: 'covey_dataset_samples_total',
      help: 'Samples of applied steps that this worker loaded, by dataset',
      labelNames: ['dataset'],
      registers,
    }),
    cacheBytes: new Gauge({
      name: 'covey_cache_bytes',
      help: 'Bytes of the shard cache on this machine; a file store is read in place',
      registers,
    }),
    cacheLimitBytes: new Gauge({ name: 'covey_cache_limit_bytes', help: 'Largest size of the shard cache', registers }),
    cacheRequests: new Counter({
      name: 'covey_cache_requests_total',
      help: 'Look-ups in the shard cache',
      labelNames: ['result'],
      registers,
    }),
    cacheEvictions: new Counter({
      name: 'covey_cache_evictions_total',
      help: 'Shards removed to make room',
      registers,
    }),
    prefetchQueueSamples: new Gauge({
      name: 'covey_prefetch_queue_samples',
      help: 'Samples that are ready to train on',
      registers,
    }),
    samplesDecoded: new Counter({ name: 'covey_samples_decoded_total', help: 'Pictures decoded', registers }),
    decodeSeconds: new Counter({
      name: 'covey_decode_seconds_total',
      help: 'Time spent decoding and augmenting',
      registers,
    }),
    modelFlops: new Counter({
      name: 'covey_model_flops_total',
      help: 'Floating-point operations the model needed',
      registers,
    }),
    peakMemoryBytes: new Gauge({
      name: 'covey_worker_peak_memory_bytes',
      help: 'The most that tensors held at once during the last step',
      registers,
    }),
    liveMemoryBytes: new Gauge({
      name: 'covey_worker_live_memory_bytes',
      help: 'What tensors hold between two steps',
      registers,
    }),
    tensors: new Gauge({ name: 'covey_worker_tensors', help: 'Live tensors between two steps', registers }),
    microBatchSamples: new Gauge({
      name: 'covey_worker_micro_batch_samples',
      help: 'Samples of a lane that go through the model at once',
      registers,
    }),
    // tfjs has 180 kernel names, so the label is bounded.
    engineFallbackCalls: new Counter({
      name: 'covey_engine_fallback_calls_total',
      help: 'Kernels that ran in JavaScript on copies of their inputs, for want of one on the engine',
      labelNames: ['kernel'],
      registers,
    }),
  };
}
