import { CoveyError } from '../../../common/errors.ts';
import { type Handle, SCALAR_TYPES } from '../../native/load.ts';
import { type DataType, type TensorInfo, util } from '../../tf.ts';
import { storageOf, type TorchBackend } from '../torch-backend.ts';
import { TorchData } from '../torch-data.ts';

/** tfjs hands kernels inputs by name (or by number) and attributes as written by the op. */
export type KernelInputs = Record<string, TensorInfo>;
export type Attributes = Record<string, any>;
export type KernelResult = TensorInfo | TensorInfo[];
/** One kernel: a short composition of ATen calls. */
export type Kernel = (scope: KernelScope, inputs: KernelInputs, attrs: Attributes) => KernelResult;
/** A family of kernels by tfjs name. */
export type KernelTable = Readonly<Record<string, Kernel>>;

const operators = new Map<string, number>();

/**
 * What a kernel sees. Every handle made through it is released when the kernel returns or throws, except those it returned as results;
 * so kernels need no clean-up code.
 */
export class KernelScope {
  readonly backend: TorchBackend;
  readonly #temporaries: Handle[] = [];

  constructor(backend: TorchBackend) {
    this.backend = backend;
  }

  /** The input's handle; not owned by the scope. */
  in(tensor: TensorInfo): Handle {
    return this.backend.handleOf(tensor);
  }

  /** Calls an ATen operator with one result. `name` may carry an overload: `add.Tensor`. */
  call(name: string, ...args: unknown[]): Handle {
    return this.#keep(this.backend.addon.call(this.#operator(name), ...args) as Handle);
  }

  /** Calls an ATen operator with several results; those that it was told not to compute are null, and not for use. */
  callMany(name: string, ...args: unknown[]): Handle[] {
    const handles = this.backend.addon.call(this.#operator(name), ...args) as Handle[];
    this.#temporaries.push(...handles.filter((handle) => handle !== null));
    return handles;
  }

  /** Another handle to the same storage, for results that share their input's. */
  alias(handle: Handle): Handle {
    return this.#keep(this.backend.addon.alias(handle));
  }

  cast(handle: Handle, dtype: string): Handle {
    return this.#keep(this.backend.addon.castTo(handle, storageOf(dtype)));
  }

  /** The input as floats: bf16 stays as it is. */
  float(tensor: TensorInfo): Handle {
    return tensor.dtype === 'float32' ? this.in(tensor) : this.cast(this.in(tensor), 'float32');
  }

  double(handle: Handle): Handle {
    return this.#keep(this.backend.addon.castTo(handle, SCALAR_TYPES.float64));
  }

  /** 64-bit integers, which some of ATen's indexing operators insist on. */
  long(handle: Handle): Handle {
    return this.#keep(this.backend.addon.castTo(handle, SCALAR_TYPES.int64));
  }

  /** A tensor of values computed in JavaScript. */
  upload(values: Int32Array | Float32Array, shape: readonly number[]): Handle {
    const dtype = values instanceof Int32Array ? SCALAR_TYPES.int32 : SCALAR_TYPES.float32;
    return this.#keep(this.backend.addon.fromTyped(values, shape, dtype));
  }

  /** A result. Without `shape` it is read from the tensor. */
  out(handle: Handle, dtype: DataType, shape?: readonly number[]): TensorInfo {
    const dataId = this.backend.adopt(handle, dtype);
    return { dataId, dtype, shape: [...(shape ?? this.backend.addon.shape(handle))] };
  }

  /** A result of strings, which have no storage in libtorch. */
  strings(values: readonly string[], shape: readonly number[]): TensorInfo {
    const bytes = values.map((value) => util.encodeString(value));
    return { dataId: this.backend.write(bytes, [...shape], 'string'), dtype: 'string', shape: [...shape] };
  }

  /** Runs a kernel and cleans up behind it. */
  run(kernel: Kernel, inputs: KernelInputs, attrs: Attributes): KernelResult {
    let results: TensorInfo[] = [];
    try {
      const result = kernel(this, inputs, attrs);
      results = Array.isArray(result) ? result : [result];
      return result;
    } finally {
      const kept = new Set(results.map(({ dataId }) => (dataId instanceof TorchData ? dataId.handle : -1)));
      for (const handle of this.#temporaries) if (!kept.has(handle)) this.backend.addon.release(handle);
    }
  }

  #keep(handle: Handle): Handle {
    this.#temporaries.push(handle);
    return handle;
  }

  #operator(name: string): number {
    let operator = operators.get(name);
    if (operator === undefined) {
      const [base, overload = ''] = name.split('.');
      operator = this.backend.addon.lookup(`aten::${base}`, overload);
      operators.set(name, operator);
    }
    return operator;
  }
}

/** An input that the op always has. */
export function input(inputs: KernelInputs, name: string): TensorInfo {
  const tensor = inputs[name];
  if (tensor === undefined) throw new CoveyError('INTERNAL', `invariant broken: kernel input ${name} is given`);
  return tensor;
}
