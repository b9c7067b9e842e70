import { assert, CoveyError } from '../common/errors.ts';
import { add, clone, dispose, keep, type Tensor, tidy, type Variable } from './tf.ts';
import { internals, isVariable, type OutputGradients, type TapeNode } from './tfjs-internals.ts';

/** Told of each parameter's gradient once, when its last use has been processed. The gradient is disposed after the call returns. */
export type GradientListener = (index: number, gradient: Tensor) => void;

/** A forward pass that can be swept backwards once. Several may be alive at a time. */
export interface Recording {
  /** What the recorded function returned. Alive until `backward` or `dispose`. */
  readonly outputs: readonly Tensor[];
  /**
   * Sweeps the tape from the end, freeing saved tensors and consumed gradients as it goes; everything the recording holds is gone
   * afterwards, also where it throws. `outputGradients[i]` belongs to `outputs[i]` and stays the caller's; null means zero.
   * Parameters that the outputs do not depend on are not reported.
   */
  backward(outputGradients: OutputGradients, parameters: readonly Variable[], onGradient: GradientListener): void;
  /** Gives everything up without a backward. Harmless when already done. */
  dispose(): void;
}

/**
 * Runs `f` while recording and hands back its outputs and the means of a backward pass. Unlike tfjs's own gradients the recording outlives the
 * call, so that many forwards can precede the first backward, and memory falls during the sweep instead of after it.
 * Temporaries that no backward needs are freed before this returns.
 */
export function recordForward(f: () => Tensor[]): Recording {
  const engine = internals();
  if (engine.state.gradientDepth > 0) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      'Cannot record a forward pass: another recording is in progress; finish it first',
    );
  }
  engine.startTape();
  let outputs: Tensor[];
  let tape: TapeNode[];
  try {
    outputs = tidy(() => distinctOutputs(f()).map((output) => keep(output)));
  } catch (thrown) {
    for (const node of engine.state.activeTape ?? []) freeSaved(node);
    throw thrown;
  } finally {
    tape = engine.state.activeTape ?? [];
    engine.state.activeTape = null;
    engine.endTape();
  }
  return new TapeRecording(outputs, pruned(tape, outputs));
}

/** Every output gets its own tensor, so that disposing the recording never frees what the caller owns. */
function distinctOutputs(outputs: readonly Tensor[]): Tensor[] {
  return outputs.map((output, index) =>
    isVariable(output) || outputs.indexOf(output) < index ? clone(output) : output,
  );
}

function freeSaved(node: TapeNode): void {
  for (const saved of node.saved) saved.dispose();
  node.saved = [];
}

/** Keeps the nodes between a trainable variable and an output; frees what the others saved. */
function pruned(tape: readonly TapeNode[], outputs: readonly Tensor[]): TapeNode[] {
  const fromVariables = new Set<number>();
  const reachable = tape.map((node) => {
    const hit = Object.values(node.inputs).some((x) => fromVariables.has(x.id) || (isVariable(x) && x.trainable));
    if (hit) for (const output of node.outputs) fromVariables.add(output.id);
    return hit;
  });
  const towardsOutputs = new Set(outputs.map((output) => output.id));
  const kept: TapeNode[] = [];
  for (let i = tape.length - 1; i >= 0; i--) {
    const node = tape[i]!;
    if (reachable[i] && node.outputs.some((output) => towardsOutputs.has(output.id))) {
      for (const x of Object.values(node.inputs)) towardsOutputs.add(x.id);
      kept.push(node);
    } else {
      freeSaved(node);
    }
  }
  return kept.reverse();
}

class TapeRecording implements Recording {
  readonly outputs: readonly Tensor[];
  /** Private, so that `tidy` does not look for tensors in here. */
  #tape: TapeNode[] | undefined;

  constructor(outputs: readonly Tensor[], tape: TapeNode[]) {
    this.outputs = outputs;
    this.#tape = tape;
  }

  backward(outputGradients: OutputGradients, parameters: readonly Variable[], onGradient: GradientListener): void {
    const tape = this.#tape;
    if (tape === undefined) {
      throw new CoveyError('INVALID_ARGUMENT', 'Cannot run backward: this recording was already swept or disposed');
    }
    if (outputGradients.length !== this.outputs.length) {
      throw new CoveyError('INVALID_ARGUMENT', 'Cannot run backward: one gradient (or null) per output is needed', {
        fields: { outputs: this.outputs.length, gradients: outputGradients.length },
      });
    }
    const sweep = new Sweep(tape, parameters, onGradient);
    try {
      this.outputs.forEach((output, index) => {
        const gradient = outputGradients[index];
        if (gradient) sweep.seed(output, gradient);
      });
      sweep.run();
    } finally {
      sweep.dispose();
      this.dispose();
    }
  }

  dispose(): void {
    if (this.#tape === undefined) return;
    for (const node of this.#tape) freeSaved(node);
    this.#tape = undefined;
    dispose(this.outputs as Tensor[]);
  }
}

/** One reverse walk over a tape. Owns the gradients in flight, by tensor id. */
class Sweep {
  readonly #tape: readonly TapeNode[];
  readonly #onGradient: GradientListener;
  readonly #parameterIndex: ReadonlyMap<number, number>;
  /** Per node, the names of the inputs whose gradients somebody needs. */
  readonly #wanted: readonly ReadonlySet<string>[];
  readonly #usesLeft: Map<number, number>;
  readonly #gradients = new Map<number, Tensor>();

  constructor(tape: readonly TapeNode[], parameters: readonly Variable[], onGradient: GradientListener) {
    this.#tape = tape;
    this.#onGradient = onGradient;
    this.#parameterIndex = new Map(parameters.map((parameter, index) => [parameter.id, index]));
    const needed = new Set(this.#parameterIndex.keys());
    this.#usesLeft = new Map();
    this.#wanted = tape.map((node) => {
      const names = new Set<string>();
      for (const [name, x] of Object.entries(node.inputs)) {
        if (!needed.has(x.id)) continue;
        names.add(name);
        if (this.#parameterIndex.has(x.id)) this.#usesLeft.set(x.id, (this.#usesLeft.get(x.id) ?? 0) + 1);
      }
      if (names.size > 0) for (const output of node.outputs) needed.add(output.id);
      return names;
    });
  }

  seed(output: Tensor, gradient: Tensor): void {
    this.#add(output.id, keep(clone(gradient)));
  }

  run(): void {
    for (let i = this.#tape.length - 1; i >= 0; i--) {
      const node = this.#tape[i]!;
      const wanted = this.#wanted[i]!;
      const outputGradients = node.outputs.map((output) => this.#take(output.id));
      if (wanted.size > 0 && outputGradients.some((gradient) => gradient !== null)) {
        for (const [name, gradient] of Object.entries(inputGradients(node, outputGradients, wanted))) {
          this.#add(node.inputs[name]!.id, gradient);
        }
      }
      for (const gradient of outputGradients) gradient?.dispose();
      freeSaved(node);
      for (const name of wanted) this.#finishUse(node.inputs[name]!.id);
    }
  }

  dispose(): void {
    for (const gradient of this.#gradients.values()) gradient.dispose();
    this.#gradients.clear();
  }

  /** Takes over a kept gradient. */
  #add(id: number, gradient: Tensor): void {
    const sum = this.#gradients.get(id);
    if (sum === undefined) {
      this.#gradients.set(id, gradient);
      return;
    }
    this.#gradients.set(id, keep(add(sum, gradient)));
    sum.dispose();
    gradient.dispose();
  }

  #take(id: number): Tensor | null {
    const gradient = this.#gradients.get(id);
    if (gradient === undefined) return null;
    this.#gradients.delete(id);
    return gradient;
  }

  #finishUse(id: number): void {
    const uses = this.#usesLeft.get(id);
    if (uses === undefined) return;
    this.#usesLeft.set(id, uses - 1);
    if (uses > 1) return;
    const gradient = this.#take(id);
    if (gradient === null) return;
    try {
      this.#onGradient(this.#parameterIndex.get(id)!, gradient);
    } finally {
      gradient.dispose();
    }
  }
}

/** The wanted inputs' gradients, kept and each its own tensor. */
function inputGradients(
  node: TapeNode,
  outputGradients: OutputGradients,
  wanted: ReadonlySet<string>,
): Record<string, Tensor> {
  return tidy(() => {
    const result: Record<string, Tensor> = {};
    // An op may hand on an output's gradient, or give two inputs the same tensor (both sides of a residual sum).
    const isShared = (gradient: Tensor) =>
      outputGradients.includes(gradient) || Object.values(result).includes(gradient);
    const own = (gradient: Tensor) => keep(isShared(gradient) ? clone(gradient) : gradient);
    if (node.sweep !== undefined) {
      const gradients = node.sweep(outputGradients, wanted);
      for (const name of wanted) if (gradients[name] !== undefined) result[name] = own(gradients[name]);
      return result;
    }
    assert(node.gradient !== undefined, 'every recorded op has a gradient', { kernel: node.kernelName });
    const thunks = node.gradient(outputGradients);
    for (const name of wanted) {
      const thunk = thunks[name];
      assert(thunk !== undefined, 'the op has a gradient for every differentiable input', {
        kernel: node.kernelName,
        input: name,
      });
      result[name] = own(thunk());
    }
    return result;
  });
}
