import { randomUUID } from 'node:crypto';
import type { Clock } from '../common/clock.ts';
import { canonicalJson } from '../common/config/canonical-json.ts';
import type { RunConfig } from '../common/config/run-config.ts';
import { CoveyError } from '../common/errors.ts';
import type { Logger } from '../common/log.ts';
import type { ObjectStore } from '../common/objectstore/object-store.ts';
import type { Run } from '../proto/gen/covey/v1/Run.ts';
import { newRun } from './core/run-state.ts';
import { configKey, HeadStore, sha256Hex } from './head-store.ts';
import type { CoordinatorMetrics } from './metrics.ts';
import { RunDriver } from './run-driver.ts';
import { parseRunConfig, settingsOf } from './run-settings.ts';

/** How often each run's core is told the time. */
const TICK_MS = 50;
/** Runs one coordinator serves. */
const RUNS_MAX = 1_000;
/** Requests remembered so that a repeated one is not done twice. */
const REQUESTS_MAX = 1_024;

export interface CoordinatorOptions {
  /** Unique per process. Default: random. */
  readonly coordinatorId?: string;
  /** Told to workers that join. */
  readonly natsUrl: string;
}

export interface CoordinatorModules {
  /** The default store: its runs are found again after a restart. The caller closes it. */
  readonly store: ObjectStore;
  /** Opens the store of a run that names another one; closed by the coordinator. Without it such a run is refused. */
  readonly openStore?: (url: string) => ObjectStore;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: CoordinatorMetrics | null;
}

/** All runs of one coordinator process. */
export class Coordinator {
  readonly coordinatorId: string;
  readonly natsUrl: string;
  readonly #modules: CoordinatorModules;
  readonly #runs = new Map<string, RunDriver>();
  readonly #opened = new Map<string, ObjectStore>();
  readonly #requests = new Map<string, Promise<void>>();
  #submitting: Promise<unknown> = Promise.resolve();
  #timer: ReturnType<typeof setInterval> | null = null;

  constructor(options: CoordinatorOptions, modules: CoordinatorModules) {
    this.coordinatorId = options.coordinatorId ?? `c-${randomUUID()}`;
    this.natsUrl = options.natsUrl;
    this.#modules = modules;
  }

  /** Finds the runs of the default store and begins to tick. A run that cannot be read is logged and left alone. */
  async start(signal?: AbortSignal): Promise<void> {
    const { store, logger } = this.#modules;
    for await (const object of store.list('runs/', signal ? { signal } : {})) {
      const run = /^runs\/([^/]+)\/HEAD$/.exec(object.key)?.[1];
      if (run === undefined) continue;
      try {
        await this.#restore(run, store, signal);
      } catch (thrown) {
        const error = CoveyError.from(thrown);
        if (CoveyError.is(error, 'CANCELLED', 'UNAVAILABLE', 'UNAUTHENTICATED', 'PERMISSION_DENIED')) throw error;
        logger.error({ run, code: error.code, reason: error.message }, 'run cannot be read; it is not served');
      }
    }
    this.#timer = setInterval(() => {
      for (const driver of this.#runs.values()) driver.tick();
    }, TICK_MS);
  }

  /** Registers a run. The same config again returns it; another config under its name is ALREADY_EXISTS. */
  submit(configJson: string): Promise<RunDriver> {
    // One at a time: two submissions of one name must see each other.
    const submitted = this.#submitting.then(() => this.#submit(configJson));
    this.#submitting = submitted.catch(() => undefined);
    return submitted;
  }

  get(run: string): RunDriver {
    const driver = this.#runs.get(run);
    if (driver === undefined)
      throw new CoveyError('NOT_FOUND', `Cannot find run ${run}: this coordinator does not serve it`, {
        fields: { run },
      });
    return driver;
  }

  /** Oldest first. */
  list(): Run[] {
    return [...this.#runs.values()]
      .sort((a, b) => a.createdAtSeconds - b.createdAtSeconds)
      .map((driver) => driver.snapshot());
  }

  /** The run a worker without preference is to join: the oldest one that wants workers. */
  runForWorker(): RunDriver {
    const wanting = [...this.#runs.values()].filter((driver) => driver.wantsWorkers);
    const oldest = wanting.sort((a, b) => a.createdAtSeconds - b.createdAtSeconds)[0];
    if (oldest === undefined) throw new CoveyError('UNAVAILABLE', 'Cannot join: no run wants workers; try again later');
    return oldest;
  }

  /** Does `action` once per request id; a repeated request waits for the first. */
  once(requestId: string, action: () => Promise<void>): Promise<void> {
    if (requestId === '') return action();
    const earlier = this.#requests.get(requestId);
    if (earlier !== undefined) return earlier;
    const done = action();
    this.#requests.set(requestId, done);
    done.catch(() => this.#requests.delete(requestId));
    for (const oldest of this.#requests.keys()) {
      if (this.#requests.size <= REQUESTS_MAX) break;
      this.#requests.delete(oldest);
    }
    return done;
  }

  async close(): Promise<void> {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
    await this.#submitting;
    await Promise.all([...this.#runs.values()].map((driver) => driver.close()));
    await Promise.all([...this.#opened.values()].map((store) => store.close()));
    this.#opened.clear();
  }

  async #submit(configJson: string): Promise<RunDriver> {
    const config = parseRunConfig(configJson);
    const store = this.#storeOf(config);
    const canonical = canonicalJson(config);
    const digest = sha256Hex(canonical);
    const served = this.#runs.get(config.run) ?? (await this.#restore(config.run, store));
    if (served !== undefined) {
      // A covey with more keys fills in more defaults: what was stored without them, read by this one, is still the same config.
      if (canonicalJson(served.options.config) === canonical) return served;
      const message = `Cannot submit run ${config.run}: it exists with another config; choose another name, or resume it`;
      throw new CoveyError('ALREADY_EXISTS', message, {
        fields: { run: config.run, submitted: digest, existing: served.options.configSha256 },
      });
    }
    if (this.#runs.size >= RUNS_MAX)
      throw new CoveyError('RESOURCE_EXHAUSTED', `Cannot submit: ${RUNS_MAX} runs are served already`);
    const head = this.#headStore(config.run, store);
    // Without HEAD the config is not yet a run's: whatever an interrupted submission left behind is replaced.
    await store.put(configKey(config.run), Buffer.from(canonical));
    await head.create(newRun(settingsOf(config), 0).head, digest);
    return this.#serve(config, canonical, digest, head);
  }

  async #restore(run: string, store: ObjectStore, signal?: AbortSignal): Promise<RunDriver | undefined> {
    const head = this.#headStore(run, store);
    const record = await head.read(signal);
    if (record === null) return undefined;
    const { bytes } = await store.get(configKey(run), signal ? { signal } : {});
    const configJson = Buffer.from(bytes).toString('utf8');
    const digest = sha256Hex(configJson);
    if (digest !== record.configSha256) {
      const message = `Cannot serve run ${run}: its config.json is not the one HEAD names`;
      throw new CoveyError('DATA_CORRUPT', message, { fields: { run, expected: record.configSha256, found: digest } });
    }
    this.#modules.logger.info(
      { run, generation: record.generation, step: record.step, state: record.state },
      'run read from HEAD',
    );
    return this.#serve(parseRunConfig(configJson), configJson, digest, head);
  }

  #serve(config: RunConfig, configJson: string, configSha256: string, head: HeadStore): RunDriver {
    const { clock, logger, metrics } = this.#modules;
    const driver = new RunDriver({ config, configJson, configSha256 }, { head, clock, logger, metrics });
    this.#runs.set(config.run, driver);
    return driver;
  }

  #headStore(run: string, store: ObjectStore): HeadStore {
    return new HeadStore({ run, coordinatorId: this.coordinatorId }, { store, clock: this.#modules.clock });
  }

  #storeOf(config: RunConfig): ObjectStore {
    const { store, openStore } = this.#modules;
    const url = config.store.replace(/\/+$/, '');
    if (url === store.url.replace(/\/+$/, '')) return store;
    if (openStore === undefined) {
      throw new CoveyError(
        'INVALID_ARGUMENT',
        `Cannot submit run ${config.run}: its store is ${url}, the coordinator's is ${store.url}`,
      );
    }
    const opened = this.#opened.get(url) ?? openStore(url);
    this.#opened.set(url, opened);
    return opened;
  }
}
