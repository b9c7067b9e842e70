import { CoveyError } from '../common/errors.ts';
import { distinctOutputs, freeSaved, recordTape } from './recorded-tape.ts';
import { Sweep } from './sweep.ts';
import { clone, dispose, keep, type Tensor, tidy, type Variable, zeros } from './tf.ts';
import {
  type ExpandedNode,
  internals,
  isRecording,
  isVariable,
  type OutputGradients,
  type TapeNode,
  unrecorded,
} from './tfjs-internals.ts';

/** Makes the inputs that were not kept from those that were: (kept) → rest, in order, to the same bits. */
export type Remake = (...kept: Tensor[]) => Tensor[];

export interface RecomputeOptions {
  /**
   * How many of the inputs are kept until backward, counted from the first; `remake` makes the others from them when they are needed.
   * Default: all.
   */
  readonly keep?: { readonly count: number; readonly remake: Remake };
}

/**
 * Gradient checkpointing (Chen et al. 2016): runs `f` and keeps only its inputs; backward runs it once more while recording, and sweeps that. The
 * gradients have the bits they have without it, and parameters are reported in the same order.
 *
 * `f` must give the same result each time, and may reach tensors from outside only as `inputs` or as variables. Where nothing is recorded
 * it is just run. Temporaries are freed when it returns.
 *
 * @throws INVALID_ARGUMENT where `f` uses a tensor from outside that is neither an input nor a variable: its gradient would be lost
 */
export function recompute(
  f: (...inputs: Tensor[]) => Tensor[],
  inputs: readonly Tensor[],
  options: RecomputeOptions = {},
): Tensor[] {
  if (!isRecording()) return tidy(() => f(...inputs));
  const probe = new ProbeTape(inputs);
  const { state } = internals();
  const tape = state.activeTape;
  state.activeTape = probe;
  let outputs: Tensor[];
  try {
    outputs = tidy(() => {
      const results = distinctOutputs(f(...inputs), inputs);
      probe.requireSelfContained();
      return results;
    });
  } finally {
    state.activeTape = tape;
  }
  const { keep: kept = { count: inputs.length, remake: () => [] } } = options;
  const saved = unrecorded(() => inputs.slice(0, kept.count).map((x) => keep(clone(x))));
  const named: Record<string, Tensor> = {};
  for (const [index, x] of [...inputs, ...probe.variables].entries()) named[String(index)] = x;
  const node: TapeNode = {
    id: state.nextTapeNodeId++,
    kernelName: 'CoveyRecompute',
    inputs: named,
    outputs,
    saved,
    expand: () => runAgain(f, inputs, outputs, saved, kept.remake),
    gradient: (outputGradients) => sweepAlone(node, outputGradients),
  };
  state.activeTape?.push(node);
  return outputs;
}

/** Stands in for the tape during the first run: lets go at once of what ops save, and remembers what they reach for. */
class ProbeTape extends Array<TapeNode> {
  readonly variables = new Set<Variable>();
  readonly #known: ReadonlySet<number>;
  readonly #firstId = internals().nextTensorId();
  /** Who uses a tensor from outside, by its id: the last to be recorded is the kernel itself, the others are clones for saving. */
  readonly #foreign = new Map<number, string>();

  constructor(inputs: readonly Tensor[]) {
    super();
    this.#known = new Set(inputs.map((x) => x.id));
  }

  override push(...nodes: TapeNode[]): number {
    for (const node of nodes) {
      for (const x of Object.values(node.inputs)) {
        if (isVariable(x)) this.variables.add(x);
        else if (x.id < this.#firstId && !this.#known.has(x.id))
          this.#foreign.set(x.id, `${node.kernelName} of [${x.shape}]`);
      }
      freeSaved(node);
    }
    return 0;
  }

  requireSelfContained(): void {
    if (this.#foreign.size === 0) return;
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot recompute: tensors from outside are used that are not among the inputs: ${[...this.#foreign.values()].join(', ')}`,
    );
  }
}

function runAgain(
  f: (...inputs: Tensor[]) => Tensor[],
  inputs: readonly Tensor[],
  outputs: readonly Tensor[],
  saved: readonly Tensor[],
  remake: Remake,
): ExpandedNode {
  const remade = tidy(() => remake(...saved).map((x) => keep(x)));
  const leaves = [...saved, ...remade];
  try {
    const inner = recordTape(() => f(...leaves), leaves);
    dispose(inner.outputs as Tensor[]);
    return {
      tape: inner.tape,
      standIns: [
        ...leaves.map((leaf, index) => [leaf, inputs[index]!] as const),
        ...inner.outputs.map((output, index) => [output, outputs[index]!] as const),
      ],
    };
  } finally {
    dispose(remade);
  }
}

/** For tfjs's own gradients, which do not know how to expand a node: everything is computed on the first question. */
function sweepAlone(node: TapeNode, outputGradients: OutputGradients): Record<string, () => Tensor> {
  const names = Object.keys(node.inputs);
  const gradients: Record<string, () => Tensor> = {};
  const sweep = new Sweep([node], Object.values(node.inputs), (index, gradient) => {
    const own = clone(gradient);
    gradients[names[index]!] = () => own;
  });
  try {
    node.outputs.forEach((output, index) => {
      const gradient = outputGradients[index];
      if (gradient) sweep.seed(output, gradient);
    });
    sweep.run();
  } finally {
    sweep.dispose();
  }
  for (const [name, x] of Object.entries(node.inputs)) gradients[name] ??= () => zeros(x.shape);
  return gradients;
}
