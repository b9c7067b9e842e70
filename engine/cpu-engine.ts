import { replaceSegmentSum } from './backend/segment-sum.ts';
import { type CountedStorage, countedStorage } from './cpu-storage.ts';
import type { EngineMemory } from './engine.ts';
import { floatsOf, InPlaceEngine } from './host-engine.ts';
import { backend, type MathBackendCPU, setBackend, type Tensor, version_core } from './tf.ts';

/** Makes tfjs's JavaScript kernels current, without their advertisement for another package. */
export async function useCpuBackend(): Promise<void> {
  replaceSegmentSum();
  await setBackend('cpu');
  (cpuBackend() as unknown as { firstUse: boolean }).firstUse = false;
}

function cpuBackend(): MathBackendCPU {
  return backend() as MathBackendCPU;
}

/** Pure JavaScript: slow, everywhere. Needs the `cpu` backend to be current. */
export class CpuEngine extends InPlaceEngine {
  readonly name = 'cpu';
  readonly description = `tfjs ${version_core} JavaScript kernels`;
  readonly #storage: CountedStorage = countedStorage(cpuBackend());

  override memory(): EngineMemory {
    const { liveBytes, peakBytes } = this.#storage;
    return { ...super.memory(), liveBytes, peakBytes, reservedBytes: liveBytes };
  }

  override resetPeakMemory(): void {
    this.#storage.resetPeak();
  }

  /** tfjs keeps the array a tensor was made from, which may still be its maker's: that one is copied on the first write. */
  protected writable(tensor: Tensor): Float32Array {
    const record = cpuBackend().data.get(tensor.dataId) as { values: unknown };
    const values = floatsOf(tensor);
    if (owned.has(values)) return values;
    const copy = Float32Array.from(values);
    owned.add(copy);
    record.values = copy;
    return copy;
  }
}

const owned = new WeakSet<Float32Array>();
