import type { ModelConfig, RunConfig } from '../../common/config/run-config.ts';
import type { ErrorRecord } from '../../common/error-record.ts';
import type { EngineName } from '../../engine/capabilities.ts';
import type { EngineMemory, FallbackUse } from '../../engine/index.ts';
import type { ComputeEnd } from '../collectives/sync-collectives.ts';
import type { EmbeddingHealth } from '../eval/embedding-health.ts';
import type { EvalBlock, EvalFacts, EvaluationFigures } from '../eval/held-out-evaluator.ts';
import type { FittedMicroBatch } from './fit-micro-batch.ts';
import type { InitialWeights } from './initial-weights.ts';
import type { StepResult } from './lane-trainer.ts';
import type { StateLayout } from './state-layout.ts';
import type { TensorGrowth } from './tensor-watch.ts';

/** Messages between a worker's main thread and its compute thread. Tensors stay in shared memory; these are only pointers to it. */

export interface ComputeSetup {
  readonly config: RunConfig;
  readonly model: ModelConfig;
  readonly threads: number;
  /** Device of this worker, whatever the config says: `auto`, `cpu`, `cuda`, `cuda:1`. */
  readonly device?: string;
  /** Number of this worker among those of its machine. Default 0. */
  readonly workerNumber?: number;
  /** This thread's end of the comms thread; undefined: a world of one without a network. */
  readonly collectives: ComputeEnd | undefined;
  /** Int32 words shared with the main thread, indexed by the CONTROL_ constants. */
  readonly control: Int32Array;
}

/** Control word: steps of any other epoch are dropped unread. The main thread raises it to abandon what is queued. */
export const CONTROL_EPOCH = 0;
export const CONTROL_WORDS = 4;

export interface LaneSlot {
  readonly lane: number;
  readonly pixels: Uint8Array;
  readonly tokens: Int32Array;
  readonly labels: Int32Array;
  readonly seeds: Uint32Array;
}

export type ComputeRequest =
  | { readonly kind: 'initialise'; readonly weights: InitialWeights | undefined }
  | { readonly kind: 'holdLanes'; readonly begin: number; readonly end: number }
  | {
      readonly kind: 'step';
      readonly epoch: number;
      readonly generation: number;
      readonly step: number;
      readonly lanes: readonly LaneSlot[];
    }
  | {
      readonly kind: 'evaluate';
      readonly epoch: number;
      readonly generation: number;
      /** Updates in the weights that are evaluated. */
      readonly step: number;
      readonly part: EvaluationPart;
      /** This worker holds all lanes and asks nobody: the same figures. */
      readonly alone: boolean;
    }
  | { readonly kind: 'exportState'; readonly buffer: SharedArrayBuffer; readonly step: number }
  | { readonly kind: 'importState'; readonly buffer: SharedArrayBuffer }
  | { readonly kind: 'digest' }
  | { readonly kind: 'close' };

/** An evaluation is made of these, in this order; the same parts on every worker, each with its own lanes. */
export type EvaluationPart =
  | { readonly do: 'begin'; readonly facts: EvalFacts; readonly isFirst: boolean }
  | { readonly do: 'pictures'; readonly part: 'test' | 'fit'; readonly blocks: readonly EvalBlock[] }
  | { readonly do: 'classTexts'; readonly blocks: readonly EvalBlock[] }
  | { readonly do: 'lossBatch'; readonly lanes: readonly LaneSlot[] }
  | { readonly do: 'figures'; readonly lanes: { readonly begin: number; readonly end: number } };

/** Of `figures`; null of the other parts. */
export type EvaluationAnswer = (EvaluationFigures & { readonly weightsDigest: string }) | null;

/** Kernels that the engine ran in JavaScript because it has none of its own. */
export interface EngineFallback {
  /** All of them since the compute thread began. */
  readonly uses: readonly FallbackUse[];
  /** Those that became hot since the reply before. */
  readonly newlyHot: readonly FallbackUse[];
}

export interface StepReply extends StepResult {
  readonly weightsDigest: string;
  /** Of the gathered embeddings; null on steps that do not measure it (eval.health.everySteps). */
  readonly health: EmbeddingHealth | null;
  readonly learningRate: number;
  readonly stepSeconds: number;
  /** Floating-point operations of the matrix products of this worker's lanes: see `laneFlops`. */
  readonly modelFlops: number;
  /** After the step; the peak is the step's own. */
  readonly engineMemory: EngineMemory;
  /** Set when live tensors keep growing from step to step. */
  readonly tensorGrowth: TensorGrowth | null;
  readonly engineFallback: EngineFallback;
}

export interface ComputeReady extends StateLayout {
  readonly engine: EngineName;
  readonly description: string;
  readonly parameters: readonly { readonly name: string; readonly shape: readonly number[] }[];
  readonly buffers: readonly { readonly name: string; readonly shape: readonly number[] }[];
  /** Of the weights drawn from the seed. */
  readonly weightsDigest: string;
  /** Samples that go through the model at once, and how that was found out where nobody had said it. */
  readonly microBatch: FittedMicroBatch;
}

export interface ComputeReplies {
  initialise: ComputeReady;
  holdLanes: null;
  step: StepReply;
  evaluate: EvaluationAnswer;
  exportState: null;
  importState: { readonly step: number; readonly weightsDigest: string };
  digest: string;
  /** What was still alive after everything was disposed, one line each; only where the tensor debugger runs. */
  close: readonly string[];
}

export type ComputeAnswer =
  | { readonly id: number; readonly ok: true; readonly value: unknown }
  | { readonly id: number; readonly ok: false; readonly error: ErrorRecord };
