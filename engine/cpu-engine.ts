import { quiet } from './backend/quiet-cpu.ts';
import { replaceSegmentSum } from './backend/segment-sum.ts';
import { countedStorage, type StoredData } from './counted-storage.ts';
import { floatsOf, InPlaceEngine } from './host-engine.ts';
import { backend, type MathBackendCPU, setBackend, type Tensor, version_core } from './tf.ts';

/** Makes tfjs's JavaScript kernels current, without their advertisement for another package. */
export async function useCpuBackend(): Promise<void> {
  replaceSegmentSum();
  await setBackend('cpu');
  quiet(cpuBackend());
}

function cpuBackend(): MathBackendCPU {
  return backend() as MathBackendCPU;
}

/** Pure JavaScript: slow, everywhere. Needs the `cpu` backend to be current. */
export class CpuEngine extends InPlaceEngine {
  readonly name = 'cpu';
  readonly description = `tfjs ${version_core} JavaScript kernels`;

  constructor() {
    super(countedStorage(cpuBackend().data as unknown as StoredData<CpuRecord>, bytesOf));
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

interface CpuRecord {
  /** Absent for complex numbers, whose two parts are stored under DataIds of their own. */
  readonly values?: unknown;
}

/** Strings count as their references. */
function bytesOf({ values }: CpuRecord): number {
  if (ArrayBuffer.isView(values)) return values.byteLength;
  return Array.isArray(values) ? 8 * values.length : 0;
}

const owned = new WeakSet<Float32Array>();
