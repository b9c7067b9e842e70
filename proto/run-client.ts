import { randomUUID } from 'node:crypto';
import grpc from '@grpc/grpc-js';
import { CoveyError, throwIfAborted } from '../common/errors.ts';
import type { Checkpoint } from './gen/covey/v1/Checkpoint.ts';
import type { GetRunResponse } from './gen/covey/v1/GetRunResponse.ts';
import type { ListCheckpointsResponse } from './gen/covey/v1/ListCheckpointsResponse.ts';
import type { ListRunsResponse } from './gen/covey/v1/ListRunsResponse.ts';
import type { ResumeRunResponse } from './gen/covey/v1/ResumeRunResponse.ts';
import type { Run } from './gen/covey/v1/Run.ts';
import type { RunServiceClient } from './gen/covey/v1/RunService.ts';
import type { StopRunResponse } from './gen/covey/v1/StopRunResponse.ts';
import type { SubmitRunResponse } from './gen/covey/v1/SubmitRunResponse.ts';
import type { WatchRunResponse } from './gen/covey/v1/WatchRunResponse.ts';
import { coveyPackage } from './load.ts';
import { fromStatus } from './status.ts';
import {
  type CallOptions,
  CHANNEL_OPTIONS,
  type ClientModules,
  type ClientOptions,
  UnaryCaller,
} from './unary-caller.ts';

export interface WatchOptions {
  readonly signal?: AbortSignal;
  /** Replay the step records after this step first. */
  readonly afterStep?: number;
}

/** Submitting, watching and steering runs (proto/covey/v1/run_service.proto). Errors as in WorkerClient. Whoever makes it closes it. */
export class RunClient {
  readonly #client: RunServiceClient;
  readonly #caller: UnaryCaller;

  constructor(options: ClientOptions, modules: ClientModules) {
    const { RunService } = coveyPackage().covey.v1;
    this.#client = new RunService(
      options.address,
      options.credentials ?? grpc.credentials.createInsecure(),
      CHANNEL_OPTIONS,
    );
    this.#caller = new UnaryCaller(options, modules);
  }

  /** `configJson` is the resolved run config. The same config again returns the run; another under its name is ALREADY_EXISTS. */
  async submitRun(configJson: string, options?: CallOptions): Promise<Run> {
    const request = { configJson, requestId: randomUUID() };
    return present(
      (
        await this.#caller.call<SubmitRunResponse>(
          'SubmitRun',
          (m, o, done) => this.#client.submitRun(request, m, o, done),
          options,
        )
      ).run,
    );
  }

  async listRuns(options?: CallOptions): Promise<Run[]> {
    return (
      await this.#caller.call<ListRunsResponse>(
        'ListRuns',
        (m, o, done) => this.#client.listRuns({}, m, o, done),
        options,
      )
    ).runs;
  }

  async getRun(run: string, options?: CallOptions): Promise<Run> {
    return present(
      (
        await this.#caller.call<GetRunResponse>(
          'GetRun',
          (m, o, done) => this.#client.getRun({ run }, m, o, done),
          options,
        )
      ).run,
    );
  }

  /** Returns at once, with the run STOPPING; watch it to see it STOPPED. */
  async stopRun(run: string, options?: CallOptions): Promise<Run> {
    const request = { run, requestId: randomUUID() };
    return present(
      (
        await this.#caller.call<StopRunResponse>(
          'StopRun',
          (m, o, done) => this.#client.stopRun(request, m, o, done),
          options,
        )
      ).run,
    );
  }

  async resumeRun(run: string, options?: CallOptions): Promise<Run> {
    const request = { run, requestId: randomUUID() };
    return present(
      (
        await this.#caller.call<ResumeRunResponse>(
          'ResumeRun',
          (m, o, done) => this.#client.resumeRun(request, m, o, done),
          options,
        )
      ).run,
    );
  }

  /** Oldest first, as far back as the run keeps them. */
  async listCheckpoints(run: string, options?: CallOptions): Promise<Checkpoint[]> {
    const response = await this.#caller.call<ListCheckpointsResponse>(
      'ListCheckpoints',
      (m, o, done) => this.#client.listCheckpoints({ run }, m, o, done),
      options,
    );
    return response.checkpoints;
  }

  /** The run as it is, then each event and step as it happens; ends when the run does. A watcher that reads too slowly gets
   * RESOURCE_EXHAUSTED, one whose coordinator went away UNAVAILABLE: watch again with `afterStep`. */
  async *watchRun(run: string, options: WatchOptions = {}): AsyncGenerator<WatchRunResponse, void, undefined> {
    throwIfAborted(options.signal);
    const stream = this.#client.watchRun({ run, afterStep: options.afterStep ?? 0 });
    const onAbort = () => stream.cancel();
    options.signal?.addEventListener('abort', onAbort, { once: true });
    try {
      for await (const response of stream) yield response as WatchRunResponse;
    } catch (thrown) {
      if (options.signal?.aborted) throw CoveyError.from(options.signal.reason, 'CANCELLED');
      throw fromStatus(thrown, 'WatchRun', this.#caller.address);
    } finally {
      options.signal?.removeEventListener('abort', onAbort);
      stream.cancel();
    }
  }

  close(): void {
    this.#client.close();
  }
}

function present(run: Run | null): Run {
  if (run === null)
    throw new CoveyError('INTERNAL', 'Cannot read the answer: it carries no run; is the coordinator of this version?');
  return run;
}
