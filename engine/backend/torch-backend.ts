import { CoveyError } from '../../common/errors.ts';
import type { HandleNet } from '../debug/handle-net.ts';
import { type Addon, type Handle, loadAddon, SCALAR_TYPES } from '../native/load.ts';
import { type BackendValues, type DataType, KernelBackend, type Tensor, type TensorInfo, util } from '../tf.ts';
import { internals, isVariable, makeTensor, type Saved } from '../tfjs-internals.ts';
import { RELEASED, STRINGS, TorchData } from './torch-data.ts';

/** tfjs's dtypes as storage. bf16 tensors say `float32` towards tfjs. */
const STORAGE: Readonly<Record<string, number>> = {
  float32: SCALAR_TYPES.float32,
  int32: SCALAR_TYPES.int32,
  bool: SCALAR_TYPES.bool,
  complex64: SCALAR_TYPES.complex64,
};

export function storageOf(dtype: string): number {
  const storage = STORAGE[dtype];
  if (storage === undefined)
    throw new CoveyError('UNSUPPORTED', `Cannot store a tensor of type ${dtype} on the torch engine`);
  return storage;
}

/** A saved result that its op did not produce. */
export const ABSENT = -1;

/** Storage kept for backward. */
export interface SavedHandle extends Saved {
  readonly handle: Handle;
  /** Absent for bare handles. */
  readonly record?: TorchData;
}

/** How a convolution needs its weight. */
export interface ConvWeightForm {
  /** As bf16. */
  readonly half: boolean;
  /** The window is one place. */
  readonly pointwise: boolean;
}

/** The tfjs backend over libtorch: storage and reference counts. Kernels are in kernels/. Not for sharing between threads. */
export class TorchBackend extends KernelBackend {
  readonly addon: Addon;
  /** Records of data that came from another backend, by that backend's DataId. */
  readonly #foreign = new WeakMap<object, TorchData>();
  #dataIds = 0;
  #net: HandleNet | undefined;

  constructor(addon: Addon) {
    super();
    this.addon = addon;
  }

  /** From now on, handles whose owner is collected undisposed are released and reported by `net`. */
  watchHandles(net: HandleNet): void {
    this.#net = net;
  }

  /** A record for a handle, which it takes over. */
  adopt(handle: Handle, dtype: DataType): TorchData {
    this.#dataIds++;
    const record = new TorchData(handle, dtype);
    this.#watch(record);
    return record;
  }

  /** The handle behind a tensor, moving its data here first when another backend holds it. Valid while the tensor lives. */
  handleOf(tensor: TensorInfo): Handle {
    return this.recordOf(tensor).handle;
  }

  recordOf(tensor: Pick<TensorInfo, 'dataId'>): TorchData {
    const { dataId } = tensor;
    if (dataId instanceof TorchData) return dataId;
    const known = this.#foreign.get(dataId);
    if (known !== undefined) return known;
    internals().moveData(this, dataId);
    const moved = this.#foreign.get(dataId);
    if (moved === undefined)
      throw new CoveyError('INTERNAL', 'invariant broken: moved data arrives at the torch backend');
    return moved;
  }

  /** A new tensor, owned by the current scope, over a handle it takes over. */
  tensor(handle: Handle, shape: readonly number[], dtype: DataType = 'float32'): Tensor {
    return makeTensor(this.adopt(handle, dtype), shape, dtype);
  }

  /** Keeps a tensor's storage for backward without making another tensor. */
  save(tensor: Tensor): SavedHandle {
    const record = this.recordOf(tensor);
    record.references++;
    return { handle: record.handle, record, dispose: () => void this.disposeData(record) };
  }

  /** Takes over a bare handle for backward. */
  saveHandle(handle: Handle): SavedHandle {
    const net = this.#net;
    if (net === undefined) return { handle, dispose: () => this.addon.release(handle) };
    const { addon } = this;
    const saved = {
      handle,
      dispose: () => {
        net.settle(saved);
        addon.release(handle);
      },
    };
    net.watch(saved, { handle, half: undefined }, () => addon.release(handle));
    return saved;
  }

  /** The same where an op has left one of its results out. */
  saveOptional(handle: Handle | null): SavedHandle {
    return handle === null ? { handle: ABSENT, dispose: () => undefined } : this.saveHandle(handle);
  }

  /** ATen's number for the tensor's storage type. */
  scalarTypeOf(tensor: TensorInfo): number {
    return this.addon.scalarType(this.handleOf(tensor));
  }

  isHalf(tensor: TensorInfo): boolean {
    return this.scalarTypeOf(tensor) === SCALAR_TYPES.bfloat16;
  }

  /**
   * A parameter in the storage type of the activations it meets. Its bf16 copy is made once per update and shared by all lanes; `use` must not keep
   * the handle.
   */
  withParameter<R>(parameter: Tensor, half: boolean, use: (handle: Handle) => R): R {
    return useRecord(this.addon, this.recordOf(parameter), half, isVariable(parameter), use);
  }

  /** The same for a parameter that was saved for backward. */
  withSaved<R>(saved: SavedHandle, half: boolean, use: (handle: Handle) => R): R {
    return useRecord(this.addon, saved.record!, half, true, use);
  }

  /**
   * A convolution's weight as the addon takes it: channels-last, in the storage type of the activations. The bf16 form is kept until the next
   * update; the fp32 one, which costs as much memory as the weight, lives as long as `use`.
   */
  withConvWeight<R>(record: TorchData, form: ConvWeightForm, use: (handle: Handle) => R): R {
    // Of one place both layouts are the same.
    if (form.pointwise) return useRecord(this.addon, record, form.half, true, use);
    if (form.half) {
      record.turned ??= this.addon.convWeight(record.handle, SCALAR_TYPES.bfloat16);
      return use(record.turned);
    }
    const turned = this.addon.convWeight(record.handle, SCALAR_TYPES.float32);
    try {
      return use(turned);
    } finally {
      this.addon.release(turned);
    }
  }

  /** To be called after storage was written in place. */
  written(tensor: TensorInfo): void {
    const record = this.recordOf(tensor);
    if (record.half !== undefined) this.addon.release(record.half);
    record.half = undefined;
    if (record.held !== undefined) record.held.half = undefined;
    this.#dropTurned(record);
  }

  /** To be called after the optimiser wrote a parameter in place and kept its bf16 copy up to date. */
  updated(parameter: TensorInfo): void {
    this.#dropTurned(this.recordOf(parameter));
  }

  // KernelBackend

  override write(values: BackendValues, shape: number[], dtype: DataType): object {
    return this.#record(values, shape, dtype);
  }

  override move(dataId: object, values: BackendValues, shape: number[], dtype: DataType, references: number): void {
    const record = this.#record(values, shape, dtype);
    record.references = references;
    this.#foreign.set(dataId, record);
  }

  override refCount(dataId: object): number {
    return this.#find(dataId)?.references ?? 0;
  }

  override incRef(dataId: object): void {
    const record = this.#find(dataId);
    if (record !== undefined) record.references++;
  }

  override disposeData(dataId: object, force = false): boolean {
    const record = this.#find(dataId);
    if (record === undefined || record.handle === RELEASED) return true;
    record.references--;
    if (!force && record.references > 0) return false;
    if (record.handle >= 0) this.addon.release(record.handle);
    if (record.half !== undefined) this.addon.release(record.half);
    if (record.held !== undefined) this.#net?.settle(record);
    this.#dropTurned(record);
    record.handle = RELEASED;
    record.half = undefined;
    record.strings = undefined;
    this.#dataIds--;
    this.#foreign.delete(dataId);
    return true;
  }

  override readSync(dataId: object): BackendValues {
    const record = this.recordOf({ dataId });
    return record.handle === STRINGS
      ? (record.strings as BackendValues)
      : (this.addon.toTyped(record.handle) as BackendValues);
  }

  override async read(dataId: object): Promise<BackendValues> {
    return this.readSync(dataId);
  }

  override numDataIds(): number {
    return this.#dataIds;
  }

  override memory(): { unreliable: boolean } {
    return { unreliable: false };
  }

  override timerAvailable(): boolean {
    return true;
  }

  override async time(f: () => void): Promise<{ kernelMs: number }> {
    const start = util.now();
    f();
    return { kernelMs: util.now() - start };
  }

  override floatPrecision(): 16 | 32 {
    return 32;
  }

  override epsilon(): number {
    return 1e-7;
  }

  override dispose(): void {
    // Storage goes with its tensors; nothing else is held.
  }

  #dropTurned(record: TorchData): void {
    if (record.turned !== undefined) this.addon.release(record.turned);
    record.turned = undefined;
  }

  #find(dataId: object): TorchData | undefined {
    return dataId instanceof TorchData ? dataId : this.#foreign.get(dataId);
  }

  #record(values: BackendValues, shape: readonly number[], dtype: DataType): TorchData {
    this.#dataIds++;
    if (dtype === 'string') return new TorchData(STRINGS, dtype, values);
    const record = new TorchData(this.addon.fromTyped(uploadable(values, dtype), shape, storageOf(dtype)), dtype);
    this.#watch(record);
    return record;
  }

  #watch(record: TorchData): void {
    if (this.#net === undefined) return;
    record.held = { handle: record.handle, half: undefined };
    this.#net.watch(record, record.held, ({ handle, half }) => {
      this.addon.release(handle);
      if (half !== undefined) this.addon.release(half);
      this.#dataIds--;
    });
  }
}

function useRecord<R>(addon: Addon, record: TorchData, half: boolean, cache: boolean, use: (handle: Handle) => R): R {
  if (!half) return use(record.handle);
  if (record.half !== undefined || cache) {
    record.half ??= addon.castTo(record.handle, SCALAR_TYPES.bfloat16);
    if (record.held !== undefined) record.held.half = record.half;
    return use(record.half);
  }
  const copy = addon.castTo(record.handle, SCALAR_TYPES.bfloat16);
  try {
    return use(copy);
  } finally {
    addon.release(copy);
  }
}

/** Values in a kind of array that the addon reads. */
function uploadable(values: BackendValues, dtype: DataType): ArrayBufferView {
  if (values instanceof Uint16Array || values instanceof Uint32Array) return Float32Array.from(values);
  if (ArrayBuffer.isView(values)) return values;
  const numbers = values as unknown as ArrayLike<number>;
  if (dtype === 'float32' || dtype === 'complex64') return Float32Array.from(numbers);
  return dtype === 'bool' ? Uint8Array.from(numbers) : Int32Array.from(numbers);
}

let current: TorchBackend | undefined;

/** This thread's torch backend; loads the addon on first use (UNSUPPORTED where it is absent). */
export function torchBackend(): TorchBackend {
  current ??= new TorchBackend(loadAddon());
  return current;
}
