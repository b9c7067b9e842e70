import grpc from '@grpc/grpc-js';
import { ReflectionService } from '@grpc/reflection';
import { HealthImplementation } from 'grpc-health-check';
import type { Clock } from '../common/clock.ts';
import { CoveyError } from '../common/errors.ts';
import type { Logger } from '../common/log.ts';
import type { RunServiceHandlers } from '../proto/gen/covey/v1/RunService.ts';
import type { WorkerServiceHandlers } from '../proto/gen/covey/v1/WorkerService.ts';
import { coveyPackage, packageDefinition } from '../proto/load.ts';
import { toStatus } from '../proto/status.ts';
import type { Coordinator } from './coordinator.ts';
import type { CoordinatorMetrics } from './metrics.ts';
import { WorkerApi } from './worker-service.ts';

/** Nothing that travels here is large; tensors go over the tensor plane. */
const MESSAGE_BYTES_MAX = 4 * 2 ** 20;
/** Calls under way get this long to end when the server closes. */
const SHUTDOWN_GRACE_MS = 2_000;
const SERVICES = ['covey.v1.RunService', 'covey.v1.WorkerService'] as const;

export interface GrpcServerOptions {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  /** Default: no TLS. */
  readonly credentials?: grpc.ServerCredentials;
}

export interface GrpcServerModules {
  readonly coordinator: Coordinator;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: CoordinatorMetrics | null;
}

/** The control plane: RunService, WorkerService, health and reflection. */
export class GrpcServer {
  readonly #options: GrpcServerOptions;
  readonly #modules: GrpcServerModules;
  readonly #server: grpc.Server;
  readonly #health = new HealthImplementation({ '': 'NOT_SERVING' });
  readonly #closing = new AbortController();

  constructor(options: GrpcServerOptions, modules: GrpcServerModules) {
    this.#options = options;
    this.#modules = modules;
    this.#server = new grpc.Server({
      'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
      'grpc.max_send_message_length': MESSAGE_BYTES_MAX,
      'grpc.keepalive_time_ms': 30_000,
      'grpc.keepalive_timeout_ms': 10_000,
    });
    const { RunService, WorkerService } = coveyPackage().covey.v1;
    this.#server.addService(RunService.service, { ...this.#runHandlers() });
    this.#server.addService(WorkerService.service, { ...this.#workerHandlers() });
    this.#health.addToServer(this.#server);
    new ReflectionService(packageDefinition()).addToServer(this.#server);
  }

  /** Binds and serves. Returns the address, host:port. UNAVAILABLE where the port is taken. */
  async listen(): Promise<string> {
    const { host, port, credentials } = this.#options;
    const wanted = `${host}:${port}`;
    const bound = await new Promise<number>((resolve, reject) => {
      this.#server.bindAsync(wanted, credentials ?? grpc.ServerCredentials.createInsecure(), (error, actual) => {
        if (error)
          reject(
            new CoveyError('UNAVAILABLE', `Cannot listen on ${wanted}: ${error.message}; choose another port`, {
              cause: error,
            }),
          );
        else resolve(actual);
      });
    });
    for (const service of ['', ...SERVICES]) this.#health.setStatus(service, 'SERVING');
    return `${host}:${bound}`;
  }

  /** Says NOT_SERVING, ends watches, lets calls under way end, then closes their connections. */
  async close(): Promise<void> {
    for (const service of ['', ...SERVICES]) this.#health.setStatus(service, 'NOT_SERVING');
    this.#closing.abort(new CoveyError('UNAVAILABLE', 'the coordinator closes'));
    const stopped = new Promise<void>((resolve) => this.#server.tryShutdown(() => resolve()));
    const force = setTimeout(() => this.#server.forceShutdown(), SHUTDOWN_GRACE_MS);
    await stopped;
    clearTimeout(force);
  }

  #workerHandlers(): WorkerServiceHandlers {
    const api = new WorkerApi(this.#modules);
    return {
      Join: this.#unary('WorkerService', 'Join', (request) => api.join(request)),
      Heartbeat: this.#unary('WorkerService', 'Heartbeat', (request, signal) => api.heartbeat(request, signal)),
      Leave: this.#unary('WorkerService', 'Leave', (request) => api.leave(request).then(() => ({}))),
      CommitStep: this.#unary('WorkerService', 'CommitStep', (request) => api.commitStep(request)),
      CommitCheckpoint: this.#unary('WorkerService', 'CommitCheckpoint', (request) =>
        api.commitCheckpoint(request).then(() => ({})),
      ),
      ReportEvaluation: this.#unary('WorkerService', 'ReportEvaluation', (request) =>
        api.reportEvaluation(request).then(() => ({})),
      ),
      ReportFailure: this.#unary('WorkerService', 'ReportFailure', (request) =>
        api.reportFailure(request).then(() => ({})),
      ),
    };
  }

  #runHandlers(): RunServiceHandlers {
    const { coordinator } = this.#modules;
    return {
      SubmitRun: this.#unary('RunService', 'SubmitRun', async ({ configJson }) => ({
        run: (await coordinator.submit(configJson)).snapshot(),
      })),
      ListRuns: this.#unary('RunService', 'ListRuns', async () => ({ runs: coordinator.list() })),
      GetRun: this.#unary('RunService', 'GetRun', async ({ run }) => ({ run: coordinator.get(run).snapshot() })),
      StopRun: this.#unary('RunService', 'StopRun', async ({ run, requestId }) => {
        await coordinator.once(requestId, async () => void (await coordinator.get(run).perform({ kind: 'stop' })));
        return { run: coordinator.get(run).snapshot() };
      }),
      ResumeRun: this.#unary('RunService', 'ResumeRun', async ({ run, requestId }) => {
        await coordinator.once(requestId, async () => void (await coordinator.get(run).perform({ kind: 'resume' })));
        return { run: coordinator.get(run).snapshot() };
      }),
      ListCheckpoints: this.#unary('RunService', 'ListCheckpoints', async ({ run }) => ({
        checkpoints: coordinator.get(run).checkpoints(),
      })),
      WatchRun: (call) => void this.#watch(call),
    };
  }

  /** A handler that ends: with the answer or a typed error; its signal aborts when the caller is gone or its deadline over. */
  #unary<Request, Response>(
    service: string,
    method: string,
    answer: (request: Request, signal: AbortSignal) => Promise<Response>,
  ): grpc.handleUnaryCall<Request, Response> {
    return (call, callback) => {
      const gone = new AbortController();
      call.on('cancelled', () => gone.abort(new CoveyError('CANCELLED', 'the caller is gone')));
      const signal = AbortSignal.any([gone.signal, this.#closing.signal]);
      answer(call.request, signal).then(
        (response) => {
          this.#count(service, method, 'OK');
          callback(null, response);
        },
        (thrown: unknown) => {
          const status = toStatus(thrown);
          this.#count(service, method, grpc.status[status.code ?? grpc.status.UNKNOWN]);
          this.#logRefusal(method, thrown);
          callback(status);
        },
      );
    };
  }

  async #watch(call: Parameters<RunServiceHandlers['WatchRun']>[0]): Promise<void> {
    const gone = new AbortController();
    call.on('cancelled', () => gone.abort());
    const signal = AbortSignal.any([gone.signal, this.#closing.signal]);
    try {
      const driver = this.#modules.coordinator.get(call.request.run);
      for await (const message of driver.watch(call.request.afterStep, signal)) {
        if (!call.write(message)) await drained(call, signal);
      }
      if (this.#closing.signal.aborted) throw CoveyError.from(this.#closing.signal.reason);
      this.#count('RunService', 'WatchRun', 'OK');
      call.end();
    } catch (thrown) {
      const status = toStatus(thrown);
      this.#count('RunService', 'WatchRun', grpc.status[status.code ?? grpc.status.UNKNOWN]);
      this.#logRefusal('WatchRun', thrown);
      call.emit('error', status);
    }
  }

  #count(service: string, method: string, code: string): void {
    this.#modules.metrics?.rpcHandled.inc({
      grpc_service: `covey.v1.${service}`,
      grpc_method: method,
      grpc_code: code,
    });
  }

  #logRefusal(method: string, thrown: unknown): void {
    const error = CoveyError.from(thrown);
    if (error.code === 'INTERNAL') this.#modules.logger.error({ method, err: error }, 'call failed');
    else if (error.code !== 'CANCELLED')
      this.#modules.logger.debug({ method, code: error.code, reason: error.message }, 'call refused');
  }
}

/** Resolves when the stream takes more, or when nobody reads it any more. */
function drained(call: NodeJS.EventEmitter, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const done = () => {
      call.off('drain', done);
      signal.removeEventListener('abort', done);
      resolve();
    };
    call.once('drain', done);
    signal.addEventListener('abort', done, { once: true });
  });
}
