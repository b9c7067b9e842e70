import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import type { RunConfig } from '../../common/config/run-config.ts';
import { CoveyError } from '../../common/errors.ts';
import { createLogger } from '../../common/log.ts';
import { loadEngine } from '../../engine/index.ts';
import { RunClient } from '../../proto/run-client.ts';
import { type LocalCluster, startLocalCluster } from '../cluster/local-cluster.ts';
import type { CommandContext } from '../context.ts';
import { formatDuration } from '../format.ts';
import { renderReport } from '../report/render-report.ts';
import { lossCurveImage } from '../report/training-sections.ts';
import { auditRun } from './audit-run.ts';
import { type DemoDataset, prepareDataset } from './dataset.ts';
import { demoReport } from './demo-report.ts';
import { demoEnvironment } from './environment.ts';
import { judgeCheckpoint } from './judge.ts';
import { medianStepSeconds, type ObservedRun, type ObservedStep } from './observed-run.ts';
import { tidyOldRuns } from './old-runs.ts';
import { DemoProgress, trainingText } from './progress.ts';
import { type DemoEngine, demoRunConfig } from './recipe.ts';
import { type DemoSummary, summarise } from './summary.ts';
import { type TrainedRun, trainRun } from './train-run.ts';

export interface DemoOptions {
  /** Of training, without preparation and judging. */
  readonly minutes: number;
  readonly workers: number;
  readonly heldOut: string;
  readonly kill: boolean;
  readonly seed: number;
  /** Everything the demo writes is below it. */
  readonly workDir: string;
  /** gRPC and HTTP ports of the coordinator; 0: a free one. */
  readonly port: number;
  readonly httpPort: number;
}

/** Steps of the calibration run, and how many of its first ones are not counted: they load libraries and decode. */
const CALIBRATION_STEPS = 12;
const CALIBRATION_SKIPPED = 5;
/** What every worker's decoding of every picture once costs, and the last checkpoint, seconds: not in the measured pace. */
const ONCE_SECONDS = 8;
/** Share of the steps after which a worker is killed. */
const KILL_AT = 0.45;
/** What a kill and the replacement's arrival cost, seconds: measured, and left out of the time that steps are planned for. */
const KILL_SECONDS = 8;
const STEPS_MIN = 20;
/** Demos whose checkpoints are kept. */
const STORES_KEPT = 3;
/** After an interrupt the workers have this long to end by themselves. */
const INTERRUPT_GRACE_MS = 2000;

/**
 * The whole main job on real pictures: render and pack, start a cluster, train, lose a worker on purpose, judge by an unseen artist's
 * drawings, report. It goes through the same public path a user's run does. Everything it starts it ends, on every path.
 */
export async function runDemo(options: DemoOptions, context: CommandContext): Promise<DemoSummary> {
  const progress = new DemoProgress(context);
  try {
    return await new Demo(options, context, progress).run();
  } finally {
    progress.close();
  }
}

class Demo {
  readonly #options: DemoOptions;
  readonly #context: CommandContext;
  readonly #progress: DemoProgress;
  readonly #run: string;
  readonly #folder: string;

  constructor(options: DemoOptions, context: CommandContext, progress: DemoProgress) {
    this.#options = options;
    this.#context = context;
    this.#progress = progress;
    const stamp = new Date(context.clock.now()).toISOString().slice(0, 19).replace(/[-:]/g, '').replace('T', '-');
    this.#run = `demo-${stamp}`;
    this.#folder = path.join(options.workDir, this.#run);
  }

  async run(): Promise<DemoSummary> {
    const progress = this.#progress;
    await mkdir(this.#folder, { recursive: true });
    const dataset = await this.#prepare();
    const engine = await this.#engineName();
    const { trained, config, secondsToTraining } = await this.#train(dataset, engine);
    const { observed, run } = trained;
    progress.say(
      `trained ${run.step} steps; reading the checkpoint back and classifying ${this.#options.heldOut}, which it never saw`,
    );
    const checkpoint = run.lastCheckpoint;
    if (checkpoint === null) throw new CoveyError('INTERNAL', 'the finished run has no checkpoint');
    const { logger, signal } = this.#context;
    const judgement = await judgeCheckpoint(
      { config, checkpoint, testManifest: dataset.testManifest, classNames: dataset.classNames },
      { logger, signal, onProgress: (done, total) => progress.update(`judging ${done}/${total}`) },
    );
    const audit = await auditRun({ config, observed, sampleLogs: this.#sampleLogs(config.run) }, this.#context);
    const report = path.join(this.#folder, 'report.html');
    const measured = {
      config,
      dataset,
      heldOut: this.#options.heldOut,
      workers: this.#options.workers,
      run,
      observed,
      zeroShot: judgement.zeroShot,
      audit,
      report,
    };
    const summary = summarise({ ...measured, secondsToTraining, totalSeconds: progress.elapsedSeconds });
    const data = demoReport({
      summary,
      config,
      observed,
      judgement,
      credits: dataset.credits,
      environment: demoEnvironment(engine.description, this.#options),
      createdAt: new Date(this.#context.clock.now()).toISOString(),
    });
    await writeFile(report, await renderReport(data));
    await writeFile(path.join(this.#folder, 'loss.svg'), await lossCurveImage(data.training));
    await writeFile(path.join(this.#folder, 'steps.json'), JSON.stringify(data.training));
    await writeFile(path.join(this.#folder, 'summary.json'), `${JSON.stringify(summary, null, 2)}\n`);
    await tidyOldRuns(this.#options.workDir, STORES_KEPT);
    return summary;
  }

  async #prepare(): Promise<DemoDataset> {
    const progress = this.#progress;
    const { logger, clock, signal } = this.#context;
    const { workDir, heldOut } = this.#options;
    const startedMs = clock.now();
    const dataset = await prepareDataset(
      { workDir, heldOut },
      {
        logger,
        clock,
        signal,
        onProgress: (done, total) => {
          const left = (((clock.now() - startedMs) / 1000) * (total - done)) / Math.max(1, done);
          progress.update(`rendering icons to shards ${done}/${total} · ETA ${formatDuration(left)}`);
        },
      },
    );
    const made = dataset.fromCache ? 'found' : 'rendered and packed';
    progress.say(
      `${made} ${dataset.trainSamples} drawings with their names; held out: ${heldOut}, ${dataset.classNames.length} names`,
    );
    return dataset;
  }

  /** Which engine the workers will get, found out here once: without the addon the demo takes a smaller model and says so. */
  async #engineName(): Promise<{ name: DemoEngine; description: string }> {
    const engine = await loadEngine({ engine: 'auto', threads: 1 });
    const { description } = engine;
    const name = engine.name === 'torch' ? 'torch' : 'wasm';
    engine.close();
    if (name === 'wasm') {
      this.#context.output.warn(
        'the native addon is not built, so the numbers are crunched in WebAssembly: a much smaller model learns much less. `npm run build` says what is missing',
      );
    }
    return { name, description };
  }

  async #train(dataset: DemoDataset, engine: { name: DemoEngine }) {
    const { options, cluster } = await this.#startCluster();
    const { signal, clock } = this.#context;
    const client = new RunClient({ address: cluster.coordinatorAddress }, { clock });
    try {
      const common = {
        seed: options.seed,
        workers: options.workers,
        store: this.#store,
        manifest: dataset.trainManifest,
        tokenizer: dataset.tokenizer,
        vocabSize: dataset.vocabSize,
        cacheDir: path.join(options.workDir, 'cache'),
        engine: engine.name,
      };
      const modules = { client, signal };
      this.#progress.update('starting workers');
      const calibration = await trainRun(
        {
          config: demoRunConfig({
            ...common,
            manifest: dataset.paceManifest,
            run: `${this.#run}-pace`,
            steps: CALIBRATION_STEPS,
          }),
        },
        modules,
        { onStep: (step) => this.#progress.update(`measuring the pace: step ${step.step}/${CALIBRATION_STEPS}`) },
      );
      const stepSeconds = medianStepSeconds(calibration.observed.steps, CALIBRATION_SKIPPED);
      const steps = stepsFor(options, stepSeconds);
      const config = demoRunConfig({ ...common, run: this.#run, steps });
      await writeFile(path.join(this.#folder, 'config.json'), `${JSON.stringify(config, null, 2)}\n`);
      this.#progress.say(
        `${(1000 * stepSeconds).toFixed(0)} ms a step of ${config.train.globalBatch} images; training ${steps} steps, about ${formatDuration(steps * stepSeconds)}`,
      );
      let secondsToTraining = Number.NaN;
      const trained = await trainRun({ config }, modules, {
        onStep: (step, observed) => {
          if (Number.isNaN(secondsToTraining)) secondsToTraining = this.#progress.elapsedSeconds;
          this.#onStep(step, observed, config, cluster);
        },
        onEvent: (kind, message) => this.#onEvent(kind, message),
      });
      this.#sayRecovery(trained);
      return { trained, config, secondsToTraining };
    } finally {
      client.close();
      await this.#endCluster(cluster);
    }
  }

  async #startCluster(): Promise<{ options: DemoOptions; cluster: LocalCluster }> {
    const options = this.#options;
    const { clock, env } = this.#context;
    const logFolder = path.join(this.#folder, 'logs');
    const logger = createLogger({
      level: 'info',
      base: { role: 'cluster' },
      file: path.join(logFolder, 'coordinator.log'),
    });
    const cluster = await startLocalCluster(
      {
        workers: options.workers,
        store: this.#store,
        port: options.port,
        httpPort: options.httpPort,
        logFolder,
        workerArguments: (index) => [
          `--sample-log=${path.join(this.#folder, 'samples', `{run}-worker-${index}.jsonl`)}`,
        ],
      },
      // Not the context's signal: an interrupt must not take the cluster away under the run's feet; `#endCluster` ends it in order.
      { clock, env, logger, signal: new AbortController().signal },
    );
    this.#progress.say(
      `cluster up: nats-server, coordinator ${cluster.coordinatorAddress}, ${options.workers} worker processes; metrics ${cluster.httpUrl}/metrics, logs ${logFolder}`,
    );
    return { options, cluster };
  }

  async #endCluster(cluster: LocalCluster): Promise<void> {
    this.#progress.update('ending the cluster');
    const graceMs = this.#context.signal.aborted ? INTERRUPT_GRACE_MS : 10_000;
    await Promise.all(cluster.workers.map((worker) => worker.stop(graceMs)));
    await cluster.close();
  }

  #onStep(step: ObservedStep, observed: ObservedRun, config: RunConfig, cluster: LocalCluster): void {
    const { steps, globalBatch } = config.train;
    const recent = medianStepSeconds(observed.lastSteps(20), 0);
    const stepSeconds = Number.isFinite(recent) ? recent : step.stepSeconds;
    this.#progress.update(trainingText(step, { steps, globalBatch, stepSeconds }));
    if (this.#options.kill && !observed.kill && step.step >= Math.ceil(KILL_AT * steps))
      this.#kill(step, observed, cluster);
    const first = observed.firstStepAfterKill;
    if (first?.step === step.step) {
      const seconds = (observed.recoverySeconds ?? 0).toFixed(1);
      this.#progress.say(
        `step ${step.step} committed ${seconds} s after the kill: loss ${step.loss.toFixed(3)}, where it was (${observed.meanLossBefore(step.step, 10).toFixed(3)})`,
      );
    }
  }

  #kill(step: ObservedStep, observed: ObservedRun, cluster: LocalCluster): void {
    const victim = cluster.workers.at(-1);
    const pid = victim?.pid;
    if (!victim || pid === undefined || !victim.kill('SIGKILL')) return;
    observed.kill = { atSeconds: this.#context.clock.now() / 1000, pid, step: step.step, generation: step.generation };
    this.#progress.say(`step ${step.step}: SIGKILL to worker process ${pid}; loss ${step.loss.toFixed(3)}`);
  }

  #onEvent(kind: string, message: string): void {
    if (kind === 'generation' || kind === 'warning') this.#progress.say(this.#context.output.colors.dim(message));
  }

  #sayRecovery({ observed }: TrainedRun): void {
    const { replacedSeconds } = observed;
    if (replacedSeconds !== undefined)
      this.#progress.say(
        `the replacement took the weights from its peer and was at work ${replacedSeconds.toFixed(1)} s after the kill`,
      );
  }

  #sampleLogs(run: string): string[] {
    return Array.from({ length: this.#options.workers }, (_, index) =>
      path.join(this.#folder, 'samples', `${run}-worker-${index}.jsonl`),
    );
  }

  get #store(): string {
    return pathToFileURL(path.join(this.#folder, 'store')).href;
  }
}

/** Steps that fill the wished time at the measured pace. */
export function stepsFor({ minutes, kill }: Pick<DemoOptions, 'minutes' | 'kill'>, stepSeconds: number): number {
  if (!(stepSeconds > 0)) throw new CoveyError('INTERNAL', `invariant broken: a step takes time: ${stepSeconds} s`);
  return Math.max(STEPS_MIN, Math.floor((minutes * 60 - ONCE_SECONDS - (kill ? KILL_SECONDS : 0)) / stepSeconds));
}
