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
  /** tfjs's contract: fills missing output gradients with zeros, returns one thunk per input. */
  gradient?: (outputGradients: OutputGradients) => Record<string, () => Tensor>;
  /** Ours: sees missing gradients as null and computes the wanted inputs' gradients together. */
  sweep?: (outputGradients: OutputGradients, wanted: ReadonlySet<string>) => Record<string, Tensor>;
}

interface EngineInternals {
  readonly state: { activeTape: TapeNode[] | null; gradientDepth: number; kernelDepth: number; nextTapeNodeId: number };
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

/** Wraps a backend's data as a tensor owned by the current scope. */
export function makeTensor(dataId: object, shape: readonly number[], dtype: DataType): Tensor {
  return internals().makeTensorFromTensorInfo({ dataId, shape: shape as number[], dtype });
}

/** A trainable or frozen variable, as opposed to an ordinary tensor. */
export function isVariable(tensor: Tensor): tensor is Variable {
  return 'trainable' in tensor;
}
