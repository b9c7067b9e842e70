import { registerFallbacks } from './backend/fallback.ts';
import { bytesOfRecord, loadTfjsNode, type TfjsNodeBackend } from './backend/tfjs-node.ts';
import { tensorflowEnvironment } from './capabilities.ts';
import { countedStorage } from './counted-storage.ts';
import { checkLength, gradientOf, HostEngine } from './host-engine.ts';
import { advancedMoments, applyRuleOnTensors, lambDirection, normOf, type TensorSlice } from './optim/tensor-rules.ts';
import type { GradientNorms, LambMoments, LambNorms, UpdateRule, UpdateTarget } from './optim/update-rule.ts';
import { add, backend, findBackend, mul, registerBackend, setBackend, sub, type Tensor, tensor, tidy } from './tf.ts';

/** Name under which tfjs-node's kernels register themselves. */
const TENSORFLOW_BACKEND = 'tensorflow';

/** Registers tfjs-node's backend on our core on first use in this thread and makes it current. UNSUPPORTED where it is absent. */
export async function useTensorflowBackend(threads: number): Promise<void> {
  if (!findBackend(TENSORFLOW_BACKEND)) {
    for (const [name, value] of Object.entries(tensorflowEnvironment(threads))) process.env[name] ??= value;
    const loaded = loadTfjsNode();
    registerBackend(TENSORFLOW_BACKEND, () => loaded, 3);
    registerFallbacks(TENSORFLOW_BACKEND, loaded);
  }
  await setBackend(TENSORFLOW_BACKEND);
}

/**
 * TensorFlow through tfjs-node. Its API reads tensors by copying them and cannot write into one: a written tensor gets a new handle under
 * its old identity. The optimiser runs on the device; only the gradient travels. Memory is counted by tensors: TensorFlow does not tell which of them
 * share storage (after a reshape, say).
 */
export class TensorflowEngine extends HostEngine {
  readonly name = 'tensorflow';
  readonly description: string;
  readonly threads: number;
  readonly #backend: TfjsNodeBackend;

  constructor(threads: number) {
    const loaded = backend() as unknown as TfjsNodeBackend;
    super(countedStorage(loaded.tensorMap, bytesOfRecord));
    this.#backend = loaded;
    this.threads = Number(process.env['TF_NUM_INTRAOP_THREADS'] ?? threads);
    const device = this.#backend.isUsingGpuDevice ? 'GPU' : 'CPU';
    this.description = `TensorFlow ${this.#backend.binding.TF_Version} through tfjs-node on ${device}, ${this.threads} thread${this.threads === 1 ? '' : 's'}`;
  }

  writeFrom(target: Tensor, values: Float32Array): void {
    checkLength(target, values);
    const record = this.#backend.tensorMap.get(target.dataId);
    // `slice`: the binding cannot read shared memory.
    const id = this.#backend.binding.createTensor(record.shape, record.dtype, values.slice());
    if (record.values === null) this.#backend.binding.deleteTensor(record.id);
    record.id = id;
    record.values = null;
  }

  applyRule(rule: UpdateRule, target: UpdateTarget): void {
    this.#forEach(target, (slice, index) => {
      const updated = applyRuleOnTensors(rule, slice, index);
      this.#exchange(slice.parameter, updated.parameter);
      updated.slots.forEach((slot, at) => void this.#exchange(slice.slots[at]!, slot));
    });
  }

  gradientNorms(weightDecays: readonly number[], target: UpdateTarget): GradientNorms[] {
    return this.#forEach(target, ({ parameter, g }, index) => ({
      parameter: normOf(parameter),
      gradient: normOf(g),
      decayed: normOf(add(g, mul(parameter, weightDecays[index]!))),
    }));
  }

  lambMoments(constants: LambMoments, target: UpdateTarget): LambNorms[] {
    return this.#forEach(target, (slice, index) => {
      const moments = advancedMoments(constants, slice);
      const { parameter, slots } = slice;
      const update = normOf(lambDirection(constants, parameter, moments, constants.weightDecays[index]!));
      moments.forEach((moment, at) => void this.#exchange(slots[at]!, moment));
      return { parameter: normOf(parameter), update };
    });
  }

  averageInto(averages: readonly Tensor[], values: readonly Tensor[], weight: number): void {
    averages.forEach((average, index) => {
      tidy(() => this.#exchange(average, add(average, mul(sub(values[index]!, average), weight))));
    });
  }

  /** Calls `work` for each parameter in a `tidy` of its own. */
  #forEach<T>(target: UpdateTarget, work: (slice: TensorSlice, index: number) => T): T[] {
    return target.parameters.map((parameter, index) => {
      const results: T[] = [];
      tidy(() => {
        // `slice`: the binding cannot read shared memory.
        const values = gradientOf(target, index).slice();
        const g = mul(tensor(values, parameter.shape), target.gradientScale);
        results.push(work({ parameter, slots: target.slots.map((slot) => slot[index]!), g }, index));
      });
      return results[0]!;
    });
  }

  /** Two tensors of one shape change storage. */
  #exchange(a: Tensor, b: Tensor): void {
    const [one, other] = [this.#backend.tensorMap.get(a.dataId), this.#backend.tensorMap.get(b.dataId)];
    [one.id, other.id] = [other.id, one.id];
    [one.values, other.values] = [other.values, one.values];
  }
}
