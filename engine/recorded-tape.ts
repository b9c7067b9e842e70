import { recordedScope } from './profile/module-scope.ts';
import { clone, keep, type Tensor, tidy } from './tf.ts';
import { internals, isVariable, type TapeNode } from './tfjs-internals.ts';

/** What one run of a function left on the tape. The outputs are kept; both are the caller's to free. */
export interface RecordedTape {
  readonly outputs: readonly Tensor[];
  /** Only what lies between a source and an output, in the order of creation. */
  readonly tape: readonly TapeNode[];
}

/**
 * Runs `f` with a tape of its own. Temporaries that no backward needs are freed before this returns, and everything is if `f` throws.
 * No other tape may be recording. `sources` are the tensors besides trainable variables whose gradients will be asked for.
 */
export function recordTape(f: () => Tensor[], sources: readonly Tensor[] = []): RecordedTape {
  const engine = internals();
  // Not null while tfjs's own gradients sweep.
  const surrounding = engine.state.activeTape;
  engine.startTape();
  let outputs: Tensor[];
  let tape: TapeNode[];
  try {
    outputs = tidy(() => distinctOutputs(recordedScope(f), sources).map((output) => keep(output)));
  } catch (thrown) {
    freeTape(engine.state.activeTape ?? []);
    throw thrown;
  } finally {
    tape = engine.state.activeTape ?? [];
    engine.state.activeTape = surrounding;
    engine.endTape();
  }
  return { outputs, tape: pruned(tape, outputs, sources) };
}

/** Every output gets its own tensor, so that freeing it never frees what somebody else owns. */
export function distinctOutputs(outputs: readonly Tensor[], owned: readonly Tensor[] = []): Tensor[] {
  return outputs.map((output, index) =>
    isVariable(output) || owned.includes(output) || outputs.indexOf(output) < index ? clone(output) : output,
  );
}

export function freeSaved(node: TapeNode): void {
  for (const saved of node.saved) saved.dispose();
  node.saved = [];
}

export function freeTape(tape: readonly TapeNode[]): void {
  for (const node of tape) freeSaved(node);
}

/** Keeps the nodes between a source and an output; frees what the others saved. */
function pruned(tape: readonly TapeNode[], outputs: readonly Tensor[], sources: readonly Tensor[]): TapeNode[] {
  const fromSources = new Set<number>(sources.map((source) => source.id));
  const reachable = tape.map((node) => {
    const hit = Object.values(node.inputs).some((x) => fromSources.has(x.id) || (isVariable(x) && x.trainable));
    if (hit) for (const output of node.outputs) fromSources.add(output.id);
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
