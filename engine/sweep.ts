import { assert } from '../common/errors.ts';
import { backwardScopes } from './profile/module-scope.ts';
import { freeSaved, freeTape } from './recorded-tape.ts';
import { add, clone, keep, type Tensor, tidy } from './tf.ts';
import type { OutputGradients, TapeNode } from './tfjs-internals.ts';

/** Told of each parameter's gradient once, when its last use has been processed. The gradient is disposed after the call returns. */
export type GradientListener = (index: number, gradient: Tensor) => void;

/**
 * One reverse walk over a tape, freeing saved tensors and consumed gradients as it goes. Owns the gradients in flight, by tensor id.
 * A node that can only be swept by running it again is expanded in place: its inner nodes take part in the same walk, so that gradients
 * are added in the order they would have without it, to the same bits.
 */
export class Sweep {
  readonly #tape: readonly TapeNode[];
  readonly #onGradient: GradientListener;
  readonly #parameterIndex: ReadonlyMap<number, number>;
  readonly #usesLeft = new Map<number, number>();
  /** Ids of tensors whose gradients somebody needs. */
  readonly #needed: Set<number>;
  readonly #gradients = new Map<number, Tensor>();
  /** From the tensors of an expanded node to those that stand for them outside. */
  readonly #aliases = new Map<number, number>();
  readonly #scopes = backwardScopes();

  constructor(tape: readonly TapeNode[], parameters: readonly Tensor[], onGradient: GradientListener) {
    this.#tape = tape;
    this.#onGradient = onGradient;
    this.#parameterIndex = new Map(parameters.map((parameter, index) => [parameter.id, index]));
    this.#needed = new Set(this.#parameterIndex.keys());
  }

  seed(output: Tensor, gradient: Tensor): void {
    this.#add(this.#id(output), keep(clone(gradient)));
  }

  run(): void {
    this.#walk(this.#tape, this.#plan(this.#tape));
  }

  dispose(): void {
    this.#scopes?.close();
    for (const gradient of this.#gradients.values()) gradient.dispose();
    this.#gradients.clear();
  }

  /** Per node, the names of the inputs whose gradients somebody needs. Counts the parameters' uses. */
  #plan(tape: readonly TapeNode[]): ReadonlySet<string>[] {
    return tape.map((node) => {
      const names = new Set<string>();
      for (const [name, x] of Object.entries(node.inputs)) {
        const id = this.#id(x);
        if (!this.#needed.has(id)) continue;
        names.add(name);
        if (this.#parameterIndex.has(id)) this.#usesLeft.set(id, (this.#usesLeft.get(id) ?? 0) + 1);
      }
      if (names.size > 0) for (const output of node.outputs) this.#needed.add(this.#id(output));
      return names;
    });
  }

  #walk(tape: readonly TapeNode[], wanted: readonly ReadonlySet<string>[]): void {
    for (let i = tape.length - 1; i >= 0; i--) {
      const node = tape[i]!;
      this.#scopes?.to(node.module);
      if (node.expand === undefined) this.#visit(node, wanted[i]!);
      else this.#visitExpanded(node, wanted[i]!);
    }
  }

  #visit(node: TapeNode, wanted: ReadonlySet<string>): void {
    const outputGradients = node.outputs.map((output) => this.#take(this.#id(output)));
    try {
      if (wanted.size > 0 && outputGradients.some((gradient) => gradient !== null)) {
        for (const [name, gradient] of Object.entries(inputGradients(node, outputGradients, wanted))) {
          this.#add(this.#id(node.inputs[name]!), gradient);
        }
      }
    } finally {
      for (const gradient of outputGradients) gradient?.dispose();
    }
    freeSaved(node);
    for (const name of wanted) this.#finishUse(this.#id(node.inputs[name]!));
  }

  /** Runs the node again while recording and walks what that recorded. */
  #visitExpanded(node: TapeNode, wanted: ReadonlySet<string>): void {
    const isReached = node.outputs.some((output) => this.#gradients.has(this.#id(output)));
    if (wanted.size > 0 && isReached) {
      const { tape, standIns } = node.expand!();
      try {
        freeSaved(node);
        for (const [inner, outer] of standIns) this.#aliases.set(inner.id, this.#id(outer));
        const innerWanted = this.#plan(tape);
        for (const name of wanted) this.#finishUse(this.#id(node.inputs[name]!));
        this.#walk(tape, innerWanted);
      } finally {
        freeTape(tape);
      }
    } else {
      freeSaved(node);
      for (const name of wanted) this.#finishUse(this.#id(node.inputs[name]!));
    }
    for (const output of node.outputs) this.#take(this.#id(output))?.dispose();
  }

  #id(tensor: Tensor): number {
    return this.#aliases.get(tensor.id) ?? tensor.id;
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
