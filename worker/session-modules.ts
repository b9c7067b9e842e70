import type { ModelConfig, RunConfig } from '../common/config/run-config.ts';
import type { ObjectStore } from '../common/objectstore/object-store.ts';
import type { Checkpointer } from './checkpoint/checkpointer.ts';
import type { CommsThread } from './collectives/comms-channel.ts';
import type { EvaluatedDataset } from './eval/evaluation.ts';
import type { ComputeHandle } from './train/compute-handle.ts';
import type { ComputeReady } from './train/compute-protocol.ts';
import type { InitialWeights } from './train/initial-weights.ts';
import type { LoadedStep } from './train/step-loop.ts';

/** Supplies the steps' data for the lanes held in a generation. */
export interface StepSource {
  /** Begins loading ahead from `fromStep` for lanes [begin, end); forgets what was loaded before. */
  seek(fromStep: number, lanes: { readonly begin: number; readonly end: number }): Promise<void>;
  load(step: number, signal: AbortSignal): Promise<LoadedStep>;
  /** Lanes loaded or loading and not yet taken. */
  readonly queuedLanes: number;
  close(): Promise<void>;
}

/** The comms thread as the main thread sees it: the tensor plane's control side. */
export type CommsControl = Pick<CommsThread, 'configure' | 'abort' | 'serveState' | 'fetchState' | 'stats'>;

/** Everything a session drives; built once by `main.ts` after the join, closed by it in reverse order. */
export interface SessionModules {
  readonly config: RunConfig;
  readonly model: ModelConfig;
  readonly configSha256: string;
  readonly datasetSha256: string;
  readonly store: ObjectStore;
  readonly compute: ComputeHandle;
  readonly ready: ComputeReady;
  readonly comms: CommsControl;
  readonly steps: StepSource;
  readonly checkpointer: Checkpointer;
  /** Held-out data to evaluate; empty where the config names none. */
  readonly evaluated: readonly EvaluatedDataset[];
  /** What a run begins with where it is not drawn from the seed; read again each time, for it is large. */
  readonly initialWeights: (signal: AbortSignal) => Promise<InitialWeights | undefined>;
  /** Shared memory of one training state: for healing and loading. */
  readonly stateBuffer: SharedArrayBuffer;
}
