import os from 'node:os';
import path from 'node:path';
import type { Clock } from '../common/clock.ts';
import { type ModelConfig, type RunConfig, runConfigSchema } from '../common/config/run-config.ts';
import type { Logger } from '../common/log.ts';
import type { ObjectStore } from '../common/objectstore/object-store.ts';
import { type EngineName, tensorflowEnvironment } from '../engine/capabilities.ts';
import { requireDevice } from '../engine/devices.ts';
import { resolveModelConfig } from '../models/model-config.ts';
import { Checkpointer } from './checkpoint/checkpointer.ts';
import type { Closers } from './closers.ts';
import { startCommsThread } from './collectives/comms-channel.ts';
import type { CoordinatorLink } from './control/coordinator-link.ts';
import { checkCaptions } from './data/check-captions.ts';
import { checkLabels } from './data/label-index.ts';
import { LaneLoader } from './data/lane-loader.ts';
import { openTokenizerFor } from './data/open-tokenizer.ts';
import { ShardCache } from './data/shard-cache.ts';
import { openTrainingData, shardReaderFor } from './data/training-data.ts';
import { openHeldOut } from './eval/open-held-out.ts';
import { checkTowerFor } from './objectives/check-tower.ts';
import { checkModelFor, objectiveInputs } from './objectives/objective-inputs.ts';
import { PrefetchedSteps } from './prefetched-steps.ts';
import type { SessionModules } from './session-modules.ts';
import type { Telemetry } from './telemetry.ts';
import { checkEngineFor } from './train/check-engine.ts';
import { ComputeHandle } from './train/compute-handle.ts';
import { loadInitialWeights } from './train/initial-weights.ts';
import { stateBytes } from './train/state-layout.ts';
import type { WorkerModules, WorkerOptions } from './worker-options.ts';

export interface SessionOpenerModules extends Pick<WorkerModules, 'openStore'> {
  readonly clock: Clock;
  /** Takes over what is opened. */
  readonly closers: Closers;
  readonly telemetry: Telemetry;
  readonly link: Pick<CoordinatorLink, 'commitCheckpoint'>;
  readonly logger: Logger;
}

/** What the coordinator says of the run that a worker has joined. */
export interface JoinedRun {
  readonly configJson: string;
  readonly configSha256: string;
  readonly natsUrl: string;
}

interface RunModels {
  readonly config: RunConfig;
  readonly model: ModelConfig;
}

/** Opens everything of a run that a worker needs, in order: what is wrong is refused before it holds lanes. */
export class SessionOpener {
  readonly #options: WorkerOptions;
  readonly #modules: SessionOpenerModules;

  constructor(options: WorkerOptions, modules: SessionOpenerModules) {
    this.#options = options;
    this.#modules = modules;
  }

  async open({ configJson, configSha256, natsUrl }: JoinedRun, signal: AbortSignal): Promise<SessionModules> {
    const { openStore, closers, logger, telemetry } = this.#modules;
    const config = runConfigSchema.parse(JSON.parse(configJson));
    const model = resolveModelConfig(config.model);
    checkModelFor(config, model);
    checkTowerFor(config, model);
    const engine = this.#options.engine ?? config.workers.engine;
    if (engine !== 'auto') this.#checkEngine(config, engine);
    const device = this.#options.device ?? config.workers.device;
    // A GPU that was asked for and is not there ends the worker before it holds lanes.
    if (device.startsWith('cuda')) requireDevice(device, this.#options.workerNumber ?? 0);
    if (engine === 'tensorflow') Object.assign(process.env, tensorflowEnvironment(this.#options.threads));
    const store = closers.add(await openStore(config.store), (it) => it.close());
    const { steps, evaluated, datasetSha256 } = await this.#openData({ config, model }, signal);
    const comms = closers.add(
      await startCommsThread(
        {
          natsUrl: this.#options.natsUrl ?? natsUrl,
          name: `covey-${config.run}`,
          timeoutMs: 1000 * config.timing.collectiveTimeoutSeconds,
        },
        { logger },
      ),
      (it) => it.close(),
    );
    telemetry.cacheLimit(config.data.cacheBytesMax);
    telemetry.follow(() => comms.stats());
    const initialWeights = (stop: AbortSignal) => loadInitialWeights(config, model, openStore, stop);
    const compute = this.#startCompute({ config, model }, { engine, device }, comms.compute);
    // From the seed: a worker that joins later takes the state of its peers, and what the run began with may be gone by then.
    const ready = await compute.request({ kind: 'initialise', weights: undefined });
    if (engine === 'auto') this.#checkEngine(config, ready.engine);
    logger.info({ engine: ready.description, parameters: ready.parameterFloats }, 'engine ready');
    const { microBatch, trials } = ready.microBatch;
    if (trials.length > 0) logger.info({ microBatch, trials }, 'micro-batch chosen');
    telemetry.microBatch(microBatch);
    const stateBuffer = new SharedArrayBuffer(stateBytes(ready));
    const checkpointer = this.#newCheckpointer(config, { store, compute, ready });
    return {
      config,
      model,
      configSha256,
      datasetSha256,
      store,
      compute,
      ready,
      comms,
      steps,
      checkpointer,
      evaluated,
      initialWeights,
      stateBuffer,
    };
  }

  /** The training data, checked and prefetched, and what the run is evaluated on. */
  async #openData({ config, model }: RunModels, signal: AbortSignal) {
    const { openStore, closers, logger, telemetry } = this.#modules;
    const openDataStore = async (url: string) => closers.add(await openStore(url), (it) => it.close());
    const training = await openTrainingData(config, openDataStore, signal);
    const { views, captions, labels } = objectiveInputs(config);
    const tokenizer = captions ? await openTokenizerFor(config, model.text, openStore, signal) : null;
    for (const part of training.parts) {
      if (captions) await checkCaptions(part, config, signal);
      if (labels) await checkLabels(part, config.loss.classes!, signal);
    }
    const dir = this.#options.cacheDir ?? config.data.cacheDir ?? path.join(os.homedir(), '.cache', 'covey');
    const openCache = ({ store: of }: { readonly store: ObjectStore }) =>
      closers.add(
        new ShardCache(
          { dir, bytesMax: config.data.cacheBytesMax },
          { store: of, logger, metrics: telemetry.cacheMetrics },
        ),
        (it) => it.close(),
      );
    const cache = shardReaderFor(training, openCache);
    const evaluated = await openHeldOut(
      config,
      model,
      { openStore: openDataStore, openCache, tokenizer, logger },
      signal,
    );
    const loader = new LaneLoader(
      {
        plan: training.plan,
        imageSide: model.vision.imageSize,
        augment: config.data.augment,
        decoded: config.data.decoded,
        pixelsMax: config.data.pixelsMax,
        views,
        captions,
        captionChoice: config.data.captions,
        classes: config.loss.classes,
      },
      { dataset: training.samples, cache, tokenizer, logger, metrics: telemetry.pictureMetrics },
    );
    const { prefetchSteps } = config.data;
    const steps = closers.add(
      new PrefetchedSteps({ totalSteps: config.train.steps, prefetchSteps }, { loader, logger }),
      (it) => it.close(),
    );
    return { steps, evaluated, datasetSha256: training.samples.sha256 };
  }

  #startCompute(
    { config, model }: RunModels,
    { engine, device }: { readonly engine: RunConfig['workers']['engine']; readonly device: string },
    collectives: Awaited<ReturnType<typeof startCommsThread>>['compute'],
  ): ComputeHandle {
    const { closers, logger } = this.#modules;
    const { threads, workerNumber = 0 } = this.#options;
    return closers.add(
      new ComputeHandle({
        config: { ...config, workers: { ...config.workers, engine } },
        model,
        threads,
        device,
        workerNumber,
        collectives,
        transfer: [collectives.port],
      }),
      async (it) => {
        for (const leak of await it.close()) logger.warn({ leak }, 'tensors were left undisposed');
      },
    );
  }

  #newCheckpointer(
    { run, checkpoint: { keepLast } }: RunConfig,
    { store, compute, ready }: Pick<SessionModules, 'store' | 'compute' | 'ready'>,
  ): Checkpointer {
    const { clock, logger, link, telemetry } = this.#modules;
    return new Checkpointer(
      { run, keepLast, layout: ready },
      {
        compute,
        store,
        clock,
        logger,
        commit: (written, generation) => link.commitCheckpoint(written, generation),
        onDone: (outcome) => telemetry.checkpoint(outcome),
      },
      new SharedArrayBuffer(stateBytes(ready)),
    );
  }

  /** Before anything is computed: what this engine cannot train is refused, what it does badly is said. */
  #checkEngine(config: RunConfig, engine: EngineName): void {
    const { logger } = this.#modules;
    for (const warning of checkEngineFor(config, engine).warnings) logger.warn({ engine }, warning);
  }
}
