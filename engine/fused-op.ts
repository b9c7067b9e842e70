import { type NamedTensorMap, type Tensor, tidy } from './tf.ts';
import { internals, isRecording, type OutputGradients, type Saved, type TapeNode } from './tfjs-internals.ts';

/** An op whose gradients we compute ourselves: one tape node, whatever it runs inside. */
export interface FusedOp<S extends Saved> {
  readonly name: string;
  readonly inputs: Readonly<Record<string, Tensor>>;
  /**
   * Computes outputs (in the current scope) and what backward needs. Nothing inside is recorded. `saved` is freed by the tape; it is freed at once
   * where nothing is `recording`.
   */
  readonly forward: (recording: boolean) => { readonly outputs: readonly Tensor[]; readonly saved: readonly S[] };
  /**
   * Gradients of the wanted inputs, by input name (others may be among them). Output gradients may be null, though not all of them.
   * `saved` is what forward returned.
   */
  readonly backward: (
    outputGradients: OutputGradients,
    wanted: ReadonlySet<string>,
    saved: readonly S[],
  ) => Record<string, Tensor>;
}

/** Runs a fused op and, while recording, puts it on the tape. Works under `recordForward` and under tfjs's own gradients. */
export function runFusedOp<S extends Saved>(op: FusedOp<S>): Tensor[] {
  const { state } = internals();
  const recording = isRecording();
  state.kernelDepth++;
  let result: ReturnType<FusedOp<S>['forward']>;
  try {
    result = op.forward(recording);
  } finally {
    state.kernelDepth--;
  }
  const outputs = [...result.outputs];
  if (!recording) {
    for (const saved of result.saved) saved.dispose();
    return outputs;
  }
  const { saved } = result;
  const backward = (outputGradients: OutputGradients, wanted: ReadonlySet<string>) =>
    op.backward(outputGradients, wanted, saved);
  const node: TapeNode = {
    id: state.nextTapeNodeId++,
    kernelName: op.name,
    inputs: op.inputs,
    outputs,
    saved: [...saved],
    sweep: backward,
    gradient: (outputGradients) => eagerThunks(Object.keys(op.inputs), outputGradients, backward),
  };
  state.activeTape?.push(node);
  return outputs;
}

/** tfjs asks per input and may not ask for all: everything is computed on the first question. */
function eagerThunks(
  names: readonly string[],
  outputGradients: OutputGradients,
  backward: NonNullable<TapeNode['sweep']>,
): Record<string, () => Tensor> {
  const gradients: NamedTensorMap = tidy(() => backward(outputGradients, new Set(names)));
  return Object.fromEntries(names.filter((name) => gradients[name]).map((name) => [name, () => gradients[name]!]));
}
