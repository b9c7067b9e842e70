import { availableParallelism } from 'node:os';
import type { Command } from 'commander';
import type { Clock } from '../../common/clock.ts';
import { CoveyError } from '../../common/errors.ts';
import { createWorkerProcessMetrics } from '../../common/metrics/create-metrics.ts';
import { serveMetrics } from '../../common/metrics/serve-metrics.ts';
import { openObjectStore } from '../../common/objectstore/open.ts';
import { runWorker, type WorkerModules, type WorkerOptions } from '../../worker/main.ts';
import { type CommandContext, serviceLogger } from '../context.ts';
import { EXIT } from '../exit-codes.ts';
import { deviceOption, type EngineChoice, engineOption, portNumber, wholeNumber } from '../option-values.ts';
import { buildIdentity } from '../package-version.ts';
import { runCommand } from '../run-command.ts';

/** Between two attempts to find a run that wants workers. */
const LOOK_AGAIN_MS = 250;

interface WorkerCommandOptions {
  readonly run: string;
  readonly threads?: number;
  readonly engine?: EngineChoice;
  readonly device?: string;
  readonly weight: number;
  readonly nats?: string;
  readonly cacheDir?: string;
  readonly sampleLog?: string;
  readonly metricsHost: string;
  readonly metricsPort?: number;
  readonly stay?: boolean;
}

export function addWorkerCommand(program: Command): void {
  program
    .command('worker')
    .description('run a worker in the foreground; SIGTERM drains it: it hands its lanes and weights on and exits 0')
    .option('--run <name>', 'join this run only (default: any that wants workers)', '')
    .option('--threads <n>', 'compute threads (default: all cores)', wholeNumber(1, 1024))
    .addOption(engineOption('engine of this worker (default: workers.engine of the run)'))
    .addOption(deviceOption('device of this worker: auto, cpu, cuda, cuda:1 (default: workers.device of the run)'))
    .option('--weight <n>', 'relative speed: lanes are leased in proportion', wholeNumber(1, 1000), 1)
    .option('--nats <url>', 'NATS server as seen from here (default: as the coordinator says)')
    .option('--cache-dir <folder>', 'shard cache (default: data.cacheDir of the run)')
    .option('--sample-log <file>', 'append the consumed samples of each committed step as JSON lines')
    .option('--metrics-host <address>', 'address of /metrics', '127.0.0.1')
    .option('--metrics-port <n>', 'port of /metrics; 0: a free one (default: none is opened)', portNumber)
    .option('--stay', 'after a run ends wait for the next one instead of exiting')
    .action(
      runCommand<WorkerCommandOptions>(async (context, _args, options) => {
        const logger = serviceLogger(context, 'worker');
        const signal =
          process.env['COVEY_EXIT_WITH_STDIN'] === '1'
            ? AbortSignal.any([context.signal, stdinClosed()])
            : context.signal;
        const metrics = createWorkerProcessMetrics({ ...buildIdentity(context.env), run: options.run });
        const served =
          options.metricsPort === undefined
            ? undefined
            : await serveMetrics({ host: options.metricsHost, port: options.metricsPort }, metrics);
        if (served) logger.info({ url: `${served.url}/metrics` }, 'metrics served');
        const openStore = (url: string) => openObjectStore(url, { env: context.env, logger, metrics: metrics.store });
        try {
          await workUntilDone(
            workerOptions(context, options),
            options.stay ?? false,
            {
              openStore: async (url) => openStore(url),
              logger,
              clock: context.clock,
              metrics,
            },
            signal,
          );
        } finally {
          await served?.close();
        }
        return EXIT.ok;
      }),
    );
}

function workerOptions(context: CommandContext, options: WorkerCommandOptions): WorkerOptions {
  return {
    coordinator: context.coordinator,
    run: options.run,
    threads: options.threads ?? availableParallelism(),
    weight: options.weight,
    ...(options.engine === undefined ? {} : { engine: options.engine }),
    ...(options.device === undefined ? {} : { device: options.device }),
    workerNumber: Number(context.env['COVEY_WORKER_NUMBER'] ?? 0),
    ...(options.nats === undefined ? {} : { natsUrl: options.nats }),
    ...(options.cacheDir === undefined ? {} : { cacheDir: options.cacheDir }),
    ...(options.sampleLog === undefined ? {} : { sampleLog: options.sampleLog }),
  };
}

/** One run, or with `stay` one after the other until the signal. */
async function workUntilDone(
  options: WorkerOptions,
  stay: boolean,
  modules: WorkerModules & { readonly clock: Clock },
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    try {
      await runWorker(options, modules, signal);
      if (!stay) return;
    } catch (thrown) {
      const error = CoveyError.from(thrown);
      // A drained worker did what it was asked to.
      if (signal.aborted && error.code === 'CANCELLED') return;
      // No run wants workers yet, or the coordinator is away for a moment: both pass.
      if (!(stay && CoveyError.is(error, 'NOT_FOUND', 'UNAVAILABLE', 'TIMEOUT'))) throw error;
      modules.logger.debug({ reason: error.message }, 'nothing to do yet');
    }
    await modules.clock.sleep(LOOK_AGAIN_MS, signal).catch(() => undefined);
  }
}

/** Aborts when standard input ends: whoever started this worker is gone. */
function stdinClosed(): AbortSignal {
  const controller = new AbortController();
  const gone = () => controller.abort(new CoveyError('CANCELLED', 'the process that started this worker is gone'));
  process.stdin.once('end', gone);
  process.stdin.once('error', gone);
  process.stdin.resume();
  return controller.signal;
}
