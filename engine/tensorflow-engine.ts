import { registerFallbacks } from './backend/fallback.ts';
import { bytesOfRecord, loadTfjsNode, type TfjsNodeBackend } from './backend/tfjs-node.ts';
import { tensorflowEnvironment } from './capabilities.ts';
import { countedStorage } from './counted-storage.ts';
import type { AdamWUpdate } from './engine.ts';
import { checkLength, flatGradient, HostEngine } from './host-engine.ts';
import {
  add,
  backend,
  div,
  findBackend,
  mul,
  registerBackend,
  setBackend,
  sqrt,
  square,
  sub,
  type Tensor,
  tensor,
  tidy,
} from './tf.ts';

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

  adamW(update: AdamWUpdate): void {
    const gradient = flatGradient(update);
    const { beta1, beta2, eps, gradientScale, step } = update;
    const secondCorrection = 1 / Math.sqrt(1 - beta2 ** step);
    let offset = 0;
    update.parameters.forEach((parameter, index) => {
      const first = update.firstMoments[index]!;
      const second = update.secondMoments[index]!;
      const rate = update.lr * update.lrScales[index]!;
      const decay = 1 - rate * update.weightDecays[index]!;
      const stepSize = rate / (1 - beta1 ** step);
      const values = gradient.slice(offset, offset + parameter.size);
      tidy(() => {
        const g = mul(tensor(values, parameter.shape), gradientScale);
        const m = add(mul(first, beta1), mul(g, 1 - beta1));
        const v = add(mul(second, beta2), mul(square(g), 1 - beta2));
        const change = div(mul(m, stepSize), add(mul(sqrt(v), secondCorrection), eps));
        this.#exchange(parameter, sub(mul(parameter, decay), change));
        this.#exchange(first, m);
        this.#exchange(second, v);
      });
      offset += parameter.size;
    });
  }

  /** Two tensors of one shape change storage. */
  #exchange(a: Tensor, b: Tensor): void {
    const [one, other] = [this.#backend.tensorMap.get(a.dataId), this.#backend.tensorMap.get(b.dataId)];
    [one.id, other.id] = [other.id, one.id];
    [one.values, other.values] = [other.values, one.values];
  }
}
