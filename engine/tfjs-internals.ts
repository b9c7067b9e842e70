import type { ModulePath } from './profile/module-path.ts';
import { type DataType, engine, type Tensor, type TensorInfo, type Variable } from './tf.ts';

/**
 * The few private members of tfjs-core's engine that the tape and the torch backend need, typed in one place. They are the same in every
 * 4.x release; a test walks through each, so that an upgrade that moves one is noticed.
 */

/** Gradient of one recorded op per output; null where no gradient reached that output. */
export type OutputGradients = readonly (Tensor | null)[];

/** Anything a tape node keeps alive for its backward. */
export interface Saved {
  dispose(): void;
}

export interface TapeNode {
  readonly id: number;
  readonly kernelName: string;
  readonly inputs: Readonly<Record<string, Tensor>>;
  readonly outputs: readonly Tensor[];
  saved: Saved[];
  /** While a profile runs: the module that recorded the node. */
  module?: ModulePath;
  /** tfjs's contract: fills missing output gradients with zeros, returns one thunk per input. */
  gradient?: (outputGradients: OutputGradients) => Record<string, () => Tensor>;
  /** Ours: sees missing gradients as null and computes the wanted inputs' gradients together. */
  sweep?: (outputGradients: OutputGradients, wanted: ReadonlySet<string>) => Record<string, Tensor>;
  /** Ours: makes the nodes that this one stands for, by running it again. See `recompute.ts`. */
  expand?: () => ExpandedNode;
}

/** What a node stands for. The tape is the caller's to free; the inner tensors may be disposed already, only their ids matter. */
export interface ExpandedNode {
  readonly tape: readonly TapeNode[];
  /** Pairs of a tensor on the inner tape and the input or output of the node that it is. */
  readonly standIns: readonly (readonly [inner: Tensor, outer: Tensor])[];
}

interface EngineInternals {
  readonly state: {
    activeTape: TapeNode[] | null;
    gradientDepth: number;
    kernelDepth: number;
    nextTapeNodeId: number;
  };
  nextTensorId(): number;
  readonly backendName: string;
  startTape(): void;
  endTape(): void;
  makeTensorFromTensorInfo(info: TensorInfo): Tensor;
  moveData(backend: unknown, dataId: object): void;
  disposeVariables(): void;
}

/** tfjs-core's engine with its private members. */
export function internals(): EngineInternals {
  return engine() as unknown as EngineInternals;
}

/** True while ops are recorded for a backward. */
export function isRecording(): boolean {
  const { state } = internals();
  return state.gradientDepth > 0 && state.kernelDepth === 0;
}

/** Runs `f` without recording what it does. */
export function unrecorded<R>(f: () => R): R {
  const { state } = internals();
  state.kernelDepth++;
  try {
    return f();
  } finally {
    state.kernelDepth--;
  }
}

/** Wraps a backend's data as a tensor owned by the current scope. */
export function makeTensor(dataId: object, shape: readonly number[], dtype: DataType): Tensor {
  return internals().makeTensorFromTensorInfo({ dataId, shape: shape as number[], dtype });
}

/** A trainable or frozen variable, as opposed to an ordinary tensor. */
export function isVariable(tensor: Tensor): tensor is Variable {
  return 'trainable' in tensor;
}
