import type { MathBackendCPU } from './tf.ts';

/** Bytes that a JavaScript backend's tensors hold. Strings, and the two parts of complex numbers beyond themselves, count as nothing. */
export interface CountedStorage {
  readonly liveBytes: number;
  readonly peakBytes: number;
  resetPeak(): void;
}

/** tfjs's map from a DataId to what is stored. */
interface StoredData {
  set(dataId: object, value: unknown): void;
  delete(dataId: object): boolean;
}

const counted = new WeakMap<MathBackendCPU, CountedStorage>();

/** Counts what the backend stores from now on; asked again for the same backend it gives the same counter. */
export function countedStorage(backend: MathBackendCPU): CountedStorage {
  const known = counted.get(backend);
  if (known !== undefined) return known;
  const data = backend.data as unknown as StoredData;
  const sizes = new WeakMap<object, number>();
  const storage = {
    liveBytes: 0,
    peakBytes: 0,
    resetPeak(): void {
      storage.peakBytes = storage.liveBytes;
    },
  };
  const set = data.set.bind(data);
  const remove = data.delete.bind(data);
  data.set = (dataId, value) => {
    const { values } = value as { values?: unknown };
    const bytes = ArrayBuffer.isView(values) ? values.byteLength : Array.isArray(values) ? 8 * values.length : 0;
    storage.liveBytes += bytes - (sizes.get(dataId) ?? 0);
    storage.peakBytes = Math.max(storage.peakBytes, storage.liveBytes);
    sizes.set(dataId, bytes);
    set(dataId, value);
  };
  data.delete = (dataId) => {
    storage.liveBytes -= sizes.get(dataId) ?? 0;
    sizes.delete(dataId);
    return remove(dataId);
  };
  counted.set(backend, storage);
  return storage;
}
