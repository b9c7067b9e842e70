/** Bytes that a backend's tensors hold, each storage counted once however many tensors share it. */
export interface CountedStorage {
  readonly liveBytes: number;
  /** The most since `resetPeak`; what a kernel holds only while it runs is not in it. */
  readonly peakBytes: number;
  resetPeak(): void;
}

/** tfjs's map from a DataId to what a backend stores under it. */
export interface StoredData<R> {
  get(dataId: object): R;
  set(dataId: object, record: R): void;
  delete(dataId: object): boolean;
}

const counted = new WeakMap<object, CountedStorage>();

/** Counts what is stored in `data` from now on; asked again for the same map it gives the same counter. */
export function countedStorage<R>(data: StoredData<R>, bytesOf: (record: R) => number): CountedStorage {
  const known = counted.get(data);
  if (known !== undefined) return known;
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
  data.set = (dataId, record) => {
    const bytes = bytesOf(record);
    storage.liveBytes += bytes - (sizes.get(dataId) ?? 0);
    storage.peakBytes = Math.max(storage.peakBytes, storage.liveBytes);
    sizes.set(dataId, bytes);
    set(dataId, record);
  };
  data.delete = (dataId) => {
    storage.liveBytes -= sizes.get(dataId) ?? 0;
    sizes.delete(dataId);
    return remove(dataId);
  };
  counted.set(data, storage);
  return storage;
}
