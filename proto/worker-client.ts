import grpc from '@grpc/grpc-js';
import type { CommitCheckpointRequestInput } from './gen/covey/v1/CommitCheckpointRequest.ts';
import type { CommitCheckpointResponse } from './gen/covey/v1/CommitCheckpointResponse.ts';
import type { CommitStepRequestInput } from './gen/covey/v1/CommitStepRequest.ts';
import type { CommitStepResponse } from './gen/covey/v1/CommitStepResponse.ts';
import type { HeartbeatRequestInput } from './gen/covey/v1/HeartbeatRequest.ts';
import type { HeartbeatResponse } from './gen/covey/v1/HeartbeatResponse.ts';
import type { JoinRequestInput } from './gen/covey/v1/JoinRequest.ts';
import type { JoinResponse } from './gen/covey/v1/JoinResponse.ts';
import type { LeaveRequestInput } from './gen/covey/v1/LeaveRequest.ts';
import type { LeaveResponse } from './gen/covey/v1/LeaveResponse.ts';
import type { ReportEvaluationRequestInput } from './gen/covey/v1/ReportEvaluationRequest.ts';
import type { ReportEvaluationResponse } from './gen/covey/v1/ReportEvaluationResponse.ts';
import type { ReportFailureRequestInput } from './gen/covey/v1/ReportFailureRequest.ts';
import type { ReportFailureResponse } from './gen/covey/v1/ReportFailureResponse.ts';
import type { WorkerServiceClient } from './gen/covey/v1/WorkerService.ts';
import { coveyPackage } from './load.ts';
import {
  type CallOptions,
  CHANNEL_OPTIONS,
  type ClientModules,
  type ClientOptions,
  UnaryCaller,
} from './unary-caller.ts';

/**
 * What a worker says to the coordinator (proto/covey/v1/worker_service.proto). Every call ends: with the answer, or with a
 * CoveyError whose code is the server's (STALE_GENERATION, NOT_FOUND, …) or the transport's (UNAVAILABLE, TIMEOUT, CANCELLED).
 * Whoever makes the client closes it.
 */
export class WorkerClient {
  readonly #client: WorkerServiceClient;
  readonly #caller: UnaryCaller;

  constructor(options: ClientOptions, modules: ClientModules) {
    const { WorkerService } = coveyPackage().covey.v1;
    this.#client = new WorkerService(
      options.address,
      options.credentials ?? grpc.credentials.createInsecure(),
      CHANNEL_OPTIONS,
    );
    this.#caller = new UnaryCaller(options, modules);
  }

  join(request: JoinRequestInput, options?: CallOptions): Promise<JoinResponse> {
    return this.#caller.call<JoinResponse>('Join', (m, o, done) => this.#client.join(request, m, o, done), options);
  }

  heartbeat(request: HeartbeatRequestInput, options?: CallOptions): Promise<HeartbeatResponse> {
    return this.#caller.call<HeartbeatResponse>(
      'Heartbeat',
      (m, o, done) => this.#client.heartbeat(request, m, o, done),
      options,
    );
  }

  async leave(request: LeaveRequestInput, options?: CallOptions): Promise<void> {
    await this.#caller.call<LeaveResponse>('Leave', (m, o, done) => this.#client.leave(request, m, o, done), options);
  }

  commitStep(request: CommitStepRequestInput, options?: CallOptions): Promise<CommitStepResponse> {
    return this.#caller.call<CommitStepResponse>(
      'CommitStep',
      (m, o, done) => this.#client.commitStep(request, m, o, done),
      options,
    );
  }

  async commitCheckpoint(request: CommitCheckpointRequestInput, options?: CallOptions): Promise<void> {
    await this.#caller.call<CommitCheckpointResponse>(
      'CommitCheckpoint',
      (m, o, done) => this.#client.commitCheckpoint(request, m, o, done),
      options,
    );
  }

  async reportEvaluation(request: ReportEvaluationRequestInput, options?: CallOptions): Promise<void> {
    await this.#caller.call<ReportEvaluationResponse>(
      'ReportEvaluation',
      (m, o, done) => this.#client.reportEvaluation(request, m, o, done),
      options,
    );
  }

  async reportFailure(request: ReportFailureRequestInput, options?: CallOptions): Promise<void> {
    await this.#caller.call<ReportFailureResponse>(
      'ReportFailure',
      (m, o, done) => this.#client.reportFailure(request, m, o, done),
      options,
    );
  }

  close(): void {
    this.#client.close();
  }
}
