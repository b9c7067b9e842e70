// What the dashboard shows: gen-dashboard.mjs lays it out.

/** Twice the slowest expected scrape interval and a bit: a rate needs two samples. */
const WINDOW = '$__rate_interval';

/** One query: PromQL and its legend. */
const q = (expr, legendFormat = '') => ({ expr, legendFormat });
const quantile = (share, metric, by = '') =>
  `histogram_quantile(${share}, sum by (le${by ? `, ${by}` : ''}) (rate(${metric}_bucket[${WINDOW}])))`;

/** Rows of panels: [title, type, unit, queries, description?]; widths are shared evenly, `rows` says over how many lines. */
export const ROWS = [
  {
    title: 'Run',
    height: 4,
    panels: [
      ['State', 'stat', 'none', [q('covey_run_state == 1', '{{run}} {{state}}')]],
      ['Step', 'stat', 'none', [q('covey_step', '{{run}}')]],
      ['Generation', 'stat', 'none', [q('covey_generation', '{{run}}')]],
      ['Workers', 'stat', 'none', [q('covey_workers', '{{state}}')]],
      [
        'Goodput',
        'stat',
        'percentunit',
        [
          q(
            `sum(rate(covey_time_seconds_total{bucket="productive"}[${WINDOW}])) / sum(rate(covey_time_seconds_total[${WINDOW}]))`,
          ),
        ],
        'Share of the workers’ time spent in steps that were committed.',
      ],
      [
        'Since last checkpoint',
        'stat',
        's',
        [q('time() - covey_checkpoint_last_success_timestamp_seconds', '{{run}}')],
      ],
    ],
  },
  {
    title: 'Learning',
    height: 8,
    panels: [
      ['Loss', 'timeseries', 'none', [q('covey_loss', '{{run}}')], 'Chance level is ln(global batch).'],
      [
        'Logit scale',
        'timeseries',
        'none',
        [q('covey_logit_scale', '{{run}}')],
        'exp of the parameter; clamped at 100.',
      ],
      ['Gradient norm', 'timeseries', 'none', [q('covey_grad_norm', '{{run}}')]],
      ['Learning rate', 'timeseries', 'sci', [q('covey_learning_rate', '{{run}}')]],
      [
        'Objective',
        'timeseries',
        'none',
        [q('covey_objective_metric', '{{name}}')],
        'What the objective measures of its own step: means over the global batch.',
      ],
      [
        'Bad samples and refused steps',
        'timeseries',
        'ops',
        [
          q(`sum by (reason) (rate(covey_samples_bad_total[${WINDOW}]))`, 'met: {{reason}}'),
          q(`sum by (run) (rate(covey_samples_replaced_total[${WINDOW}]))`, 'replaced in {{run}}'),
          q(`sum(rate(covey_nonfinite_total[${WINDOW}]))`, 'not finite'),
        ],
      ],
    ],
  },
  {
    title: 'Evaluation and embeddings',
    height: 8,
    panels: [
      [
        'Held-out data',
        'timeseries',
        'none',
        [q('covey_eval_metric{name!~".*(rank|loss).*"}', '{{dataset}} {{name}}')],
        'Accuracies and recalls, by open_clip’s names.',
      ],
      [
        'Ranks and losses',
        'timeseries',
        'none',
        [q('covey_eval_metric{name=~".*(rank|loss).*"}', '{{dataset}} {{name}}')],
      ],
      ['Evaluated step', 'timeseries', 'none', [q('covey_eval_step', '{{run}}'), q('covey_step', '{{run}} now')]],
      ['Evaluation takes', 'timeseries', 's', [q('covey_eval_duration_seconds', '{{run}}')]],
      [
        'Spread of embeddings',
        'timeseries',
        'none',
        [
          q('covey_embedding_health{measure="std_ratio"}', '{{embedding}}'),
          q('covey_embedding_collapsed', 'collapsed'),
        ],
        '1: over the whole sphere; 0: one point. docs/evaluation.md',
      ],
      [
        'Similarities and effective rank',
        'timeseries',
        'none',
        [q('covey_embedding_health{measure!="std_ratio"}', '{{embedding}} {{measure}}')],
      ],
    ],
  },
  {
    title: 'Throughput',
    height: 8,
    panels: [
      [
        'Samples per second',
        'timeseries',
        'none',
        [q(`sum by (run) (rate(covey_samples_total[${WINDOW}]))`, '{{run}}')],
        'Committed samples only.',
      ],
      [
        'Samples per second, by dataset',
        'timeseries',
        'none',
        [q(`sum by (dataset) (rate(covey_dataset_samples_total[${WINDOW}]))`, '{{dataset}}')],
        'Of a mixture, as the workers loaded them for steps that were applied.',
      ],
      ['Steps', 'timeseries', 'ops', [q(`sum by (result) (rate(covey_steps_total[${WINDOW}]))`, '{{result}}')]],
      [
        'Step duration',
        'timeseries',
        's',
        [
          q(quantile(0.5, 'covey_step_duration_seconds'), 'p50'),
          q(quantile(0.99, 'covey_step_duration_seconds'), 'p99'),
        ],
      ],
      [
        'Samples thrown away',
        'timeseries',
        'ops',
        [q(`sum by (reason) (rate(covey_samples_discarded_total[${WINDOW}]))`, '{{reason}}')],
        'Computed in steps that were abandoned.',
      ],
    ],
  },
  {
    title: 'Where a step goes',
    height: 8,
    panels: [
      [
        'Seconds per second, by phase',
        'timeseries',
        's',
        [q(`sum by (phase) (rate(covey_step_phase_seconds_total[${WINDOW}]))`, '{{phase}}')],
        '',
        'stacked',
      ],
      [
        'Waiting for others',
        'timeseries',
        's',
        [
          q(
            `sum by (instance) (rate(covey_step_phase_seconds_total{phase=~"wait|gather|reduce"}[${WINDOW}]))`,
            '{{instance}}',
          ),
        ],
        'The worker that waits least is the slowest one.',
      ],
      [
        'Time by purpose',
        'timeseries',
        's',
        [q(`sum by (bucket) (rate(covey_time_seconds_total[${WINDOW}]))`, '{{bucket}}')],
        '',
        'stacked',
      ],
    ],
  },
  {
    title: 'Membership',
    height: 8,
    panels: [
      [
        'Changes',
        'timeseries',
        'ops',
        [q(`sum by (reason) (rate(covey_membership_changes_total[${WINDOW}]))`, '{{reason}}')],
      ],
      ['Forming a generation', 'timeseries', 's', [q(quantile(0.99, 'covey_rendezvous_duration_seconds'), 'p99')]],
      [
        'Since last heartbeat',
        'timeseries',
        's',
        [q('time() - covey_worker_last_heartbeat_timestamp_seconds', 'worker {{worker}}')],
      ],
      [
        'Fenced requests',
        'timeseries',
        'ops',
        [q(`sum by (rpc) (rate(covey_fenced_requests_total[${WINDOW}]))`, '{{rpc}}')],
        'Refused because their generation was over.',
      ],
    ],
  },
  {
    title: 'Object store and cache',
    height: 8,
    panels: [
      [
        'Request duration (p99)',
        'timeseries',
        's',
        [q(quantile(0.99, 'covey_s3_request_duration_seconds', 'op'), '{{op}}')],
      ],
      [
        'Requests',
        'timeseries',
        'ops',
        [q(`sum by (op, code) (rate(covey_s3_requests_total[${WINDOW}]))`, '{{op}} {{code}}')],
      ],
      [
        'Retries',
        'timeseries',
        'ops',
        [q(`sum by (op, reason) (rate(covey_s3_retries_total[${WINDOW}]))`, '{{op}} {{reason}}')],
      ],
      [
        'Bytes',
        'timeseries',
        'Bps',
        [q(`sum by (direction) (rate(covey_s3_bytes_total[${WINDOW}]))`, '{{direction}}')],
      ],
      [
        'Shard cache',
        'timeseries',
        'bytes',
        [q('covey_cache_bytes', '{{instance}}'), q('covey_cache_limit_bytes', '{{instance}} limit')],
      ],
      [
        'Cache requests',
        'timeseries',
        'ops',
        [
          q(`sum by (result) (rate(covey_cache_requests_total[${WINDOW}]))`, '{{result}}'),
          q(`sum(rate(covey_cache_evictions_total[${WINDOW}]))`, 'evictions'),
        ],
      ],
      [
        'Prefetched samples',
        'timeseries',
        'none',
        [q('covey_prefetch_queue_samples', '{{instance}}')],
        '0 while training: the loader is the bottleneck.',
      ],
    ],
  },
  {
    title: 'Between the workers',
    height: 8,
    panels: [
      [
        'NATS bytes',
        'timeseries',
        'Bps',
        [q(`sum by (direction, kind) (rate(covey_nats_bytes_total[${WINDOW}]))`, '{{kind}} {{direction}}')],
      ],
      [
        'Collective duration (p99)',
        'timeseries',
        's',
        [q(quantile(0.99, 'covey_collective_duration_seconds', 'op'), '{{op}}')],
      ],
      [
        'Gaps, resends, disconnects',
        'timeseries',
        'ops',
        [
          q(`sum(rate(covey_nats_gaps_total[${WINDOW}]))`, 'gaps'),
          q(`sum(rate(covey_nats_retransmits_total[${WINDOW}]))`, 'resent'),
          q(`sum(rate(covey_nats_disconnects_total[${WINDOW}]))`, 'disconnects'),
        ],
      ],
      [
        'Waiting for credit',
        'timeseries',
        's',
        [q(`sum by (instance) (rate(covey_nats_credit_wait_seconds_total[${WINDOW}]))`, '{{instance}}')],
      ],
    ],
  },
  {
    title: 'Checkpoints',
    height: 8,
    panels: [
      [
        'Duration (p99)',
        'timeseries',
        's',
        [q(quantile(0.99, 'covey_checkpoint_duration_seconds', 'phase'), '{{phase}}')],
      ],
      ['Last step', 'timeseries', 'none', [q('covey_checkpoint_last_step', '{{run}}')]],
      ['Size', 'timeseries', 'bytes', [q('covey_checkpoint_bytes', '{{run}}')]],
      [
        'Outcomes',
        'timeseries',
        'ops',
        [
          q(`sum by (result) (rate(covey_checkpoint_total[${WINDOW}]))`, '{{result}}'),
          q(`sum(rate(covey_checkpoint_verify_failures_total[${WINDOW}]))`, 'verify failed'),
        ],
      ],
    ],
  },
  {
    title: 'Processes',
    height: 8,
    panels: [
      ['Event-loop lag (p99)', 'timeseries', 's', [q('nodejs_eventloop_lag_p99_seconds', '{{instance}}')]],
      ['Resident memory', 'timeseries', 'bytes', [q('process_resident_memory_bytes', '{{instance}}')]],
      [
        'Tensor memory',
        'timeseries',
        'bytes',
        [
          q('covey_worker_peak_memory_bytes', '{{instance}} peak of a step'),
          q('covey_worker_live_memory_bytes', '{{instance}} between steps'),
        ],
        'Between steps it must not grow: weights, moments and gathered embeddings.',
      ],
      [
        'Live tensors',
        'timeseries',
        'none',
        [q('covey_worker_tensors', '{{instance}}')],
        'Between steps. One that grows leaks: COVEY_DEBUG_TENSORS=1 names the culprits.',
      ],
      [
        'Micro-batch',
        'timeseries',
        'none',
        [q('covey_worker_micro_batch_samples', '{{instance}}')],
        'Samples of a lane that go through the model at once; below the lane where memory is short (docs/large-batches.md).',
      ],
      ['CPU', 'timeseries', 'percentunit', [q(`rate(process_cpu_seconds_total[${WINDOW}])`, '{{instance}}')]],
      [
        'RPCs by outcome',
        'timeseries',
        'ops',
        [
          q(
            `sum by (grpc_method, grpc_code) (rate(grpc_server_handled_total[${WINDOW}]))`,
            '{{grpc_method}} {{grpc_code}}',
          ),
        ],
      ],
      [
        'Kernels run in JavaScript',
        'timeseries',
        'ops',
        [q(`sum by (kernel) (rate(covey_engine_fallback_calls_total[${WINDOW}]))`, '{{kernel}}')],
        'Kernels without a native version on the engine. More than a few a second is a hot path that wants one.',
      ],
    ],
  },
];
