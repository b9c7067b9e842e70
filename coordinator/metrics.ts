import { Counter, Gauge, Histogram, type Registry } from 'prom-client';

const RUN_STATES = [
  'pending',
  'forming',
  'running',
  'stopping',
  'stopped',
  'finished',
  'failed',
  'superseded',
] as const;
const STEP_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

/** The coordinator's metrics. `run` is bounded: its series go when the run leaves this coordinator. */
export type CoordinatorMetrics = ReturnType<typeof createCoordinatorMetrics>;

export function createCoordinatorMetrics(registry: Registry) {
  const registers = [registry];
  const gauge = <L extends string>(name: string, help: string, ...labelNames: L[]) =>
    new Gauge({ name, help, labelNames, registers });
  const counter = <L extends string>(name: string, help: string, ...labelNames: L[]) =>
    new Counter({ name, help, labelNames, registers });
  const state = gauge('covey_run_state', '1 for the state the run is in', 'run', 'state');
  const metrics = {
    runInfo: gauge('covey_run_info', 'Identity of a run', 'run', 'config_sha'),
    generation: gauge('covey_generation', 'Generation in force', 'run'),
    workers: gauge('covey_workers', 'Members by state', 'run', 'state'),
    membershipChanges: counter('covey_membership_changes_total', 'Members that came and went', 'run', 'reason'),
    rendezvousSeconds: new Histogram({
      name: 'covey_rendezvous_duration_seconds',
      help: 'From a generation in HEAD to all members ready',
      labelNames: ['run'],
      buckets: [0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300],
      registers,
    }),
    lastHeartbeat: gauge(
      'covey_worker_last_heartbeat_timestamp_seconds',
      'When the worker was last heard',
      'run',
      'worker',
    ),
    fenced: counter(
      'covey_fenced_requests_total',
      'Requests refused because their generation or lease was over',
      'run',
      'rpc',
    ),
    samples: counter('covey_samples_total', 'Samples in committed steps', 'run'),
    steps: counter('covey_steps_total', 'Steps by result', 'run', 'result'),
    stepSeconds: new Histogram({
      name: 'covey_step_duration_seconds',
      help: 'Step time',
      labelNames: ['run'],
      buckets: STEP_SECONDS,
      registers,
    }),
    step: gauge('covey_step', 'Newest step', 'run'),
    loss: gauge('covey_loss', 'Loss of the newest step', 'run'),
    logitScale: gauge('covey_logit_scale', 'exp(logit scale)', 'run'),
    gradNorm: gauge('covey_grad_norm', 'Global gradient norm before clipping', 'run'),
    objectiveMetric: gauge('covey_objective_metric', "The objective's own results of the newest step", 'run', 'name'),
    embeddingHealth: gauge(
      'covey_embedding_health',
      'Spread of what the newest measured step gathered: std_ratio, effective_rank, uniformity, alignment, …',
      'run',
      'embedding',
      'measure',
    ),
    embeddingCollapsed: gauge('covey_embedding_collapsed', '1 while an embedding is (nearly) one point', 'run'),
    evalMetric: gauge('covey_eval_metric', 'Newest results on held-out data', 'run', 'dataset', 'name'),
    evalStep: gauge('covey_eval_step', 'Step whose weights were evaluated last', 'run'),
    evalSeconds: gauge('covey_eval_duration_seconds', 'How long the newest evaluation took', 'run'),
    learningRate: gauge('covey_learning_rate', 'Learning rate of the newest step', 'run'),
    globalBatchSize: gauge('covey_global_batch_size', 'Samples per step', 'run'),
    nonFinite: counter('covey_nonfinite_total', 'Steps skipped for a non-finite loss or gradient', 'run'),
    badSamples: counter('covey_samples_replaced_total', 'Broken samples replaced in committed steps', 'run'),
    checkpointStep: gauge('covey_checkpoint_last_step', 'Step of the newest checkpoint', 'run'),
    checkpointTime: gauge(
      'covey_checkpoint_last_success_timestamp_seconds',
      'When the newest checkpoint was committed',
      'run',
    ),
    checkpointBytes: gauge('covey_checkpoint_bytes', 'Size of the newest checkpoint', 'run'),
    headWrites: counter('covey_head_writes_total', 'HEAD compare-and-swaps by result', 'run', 'result'),
    rpcHandled: counter('grpc_server_handled_total', 'Calls answered', 'grpc_service', 'grpc_method', 'grpc_code'),
    setState(run: string, current: string) {
      for (const name of RUN_STATES) state.set({ run, state: name }, name === current ? 1 : 0);
    },
  };
  return metrics;
}
