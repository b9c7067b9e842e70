import { CoveyError } from '../../common/errors.ts';

/**
 * Reads the pickles in which torch keeps state dicts, and runs nothing: an object is made only of the globals listed here, each by code
 * of this file, and an opcode that is not here ends the reading (Python's pickletools.py describes them). What any pickle may do through
 * REDUCE and BUILD, call whatever it names, has no counterpart.
 */

/** A tensor as torch pickles it: a view of a storage, which is another file of the archive. */
export class TensorView {
  readonly storage: Storage;
  /** In elements. */
  readonly offset: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];

  constructor(storage: Storage, offset: number, shape: readonly number[], strides: readonly number[]) {
    this.storage = storage;
    this.offset = offset;
    this.shape = shape;
    this.strides = strides;
  }
}

export interface Storage {
  readonly kind: 'storage';
  /** torch's name of the element type, e.g. HalfStorage. */
  readonly type: string;
  /** Name of the file below `data/`. */
  readonly key: string;
  readonly elements: number;
}

export type PickleValue =
  | null
  | boolean
  | number
  | string
  | TensorView
  | Storage
  | Global
  | PickleValue[]
  | Map<PickleValue, PickleValue>;

/** A name, never what it names. */
interface Global {
  readonly kind: 'global';
  readonly name: string;
}

const MARK = Symbol('mark');
type StackItem = PickleValue | typeof MARK;

const VALUES_MAX = 1_000_000;
const STORAGE_NAME = /^torch ([A-Z][A-Za-z0-9]*Storage)$/;
const ORDERED_DICT = 'collections OrderedDict';
const REBUILD_TENSOR = 'torch._utils _rebuild_tensor_v2';
const REBUILD_PARAMETER = 'torch._utils _rebuild_parameter';
const CALLED = new Set([ORDERED_DICT, REBUILD_TENSOR, REBUILD_PARAMETER]);

/**
 * The value of a pickle.
 * @throws CoveyError UNSUPPORTED where it names anything but state dicts are made of; DATA_CORRUPT where it is no whole pickle
 */
export function readPickle(bytes: Uint8Array, file: string): PickleValue {
  return new PickleReader(bytes, file).run();
}

class PickleReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #file: string;
  readonly #stack: StackItem[] = [];
  readonly #memo = new Map<number, PickleValue>();
  #at = 0;

  constructor(bytes: Uint8Array, file: string) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#file = file;
  }

  run(): PickleValue {
    for (;;) {
      const at = this.#at;
      const code = this.#take(1)[0]!;
      if (code === 0x2e) break; // STOP
      const operation = OPERATIONS[code];
      if (!operation) {
        throw this.#refused(`opcode 0x${code.toString(16)} at byte ${at} is not one that state dicts use`);
      }
      operation(this);
      if (this.#stack.length + this.#memo.size > VALUES_MAX) {
        throw this.#refused(`it holds more than ${VALUES_MAX} values`);
      }
    }
    return this.pop();
  }

  push(value: PickleValue): void {
    this.#stack.push(value);
  }

  mark(): void {
    this.#stack.push(MARK);
  }

  pop(): PickleValue {
    const value = this.#stack.pop();
    if (value === undefined || value === MARK) throw this.corrupt('an operation finds nothing on the stack');
    return value;
  }

  popToMark(): PickleValue[] {
    const at = this.#stack.lastIndexOf(MARK);
    if (at < 0) throw this.corrupt('an operation finds no mark on the stack');
    const values = this.#stack.splice(at).slice(1);
    return values as PickleValue[];
  }

  top(): PickleValue {
    const value = this.pop();
    this.push(value);
    return value;
  }

  remember(place: number): void {
    this.#memo.set(place, this.top());
  }

  get memoSize(): number {
    return this.#memo.size;
  }

  recall(place: number): void {
    const value = this.#memo.get(place);
    if (value === undefined) throw this.corrupt(`it refers to value ${place}, which is not there`);
    this.push(value);
  }

  byte(): number {
    return this.#take(1)[0]!;
  }

  uint16(): number {
    return this.#view.getUint16(this.#skip(2), true);
  }

  int32(): number {
    return this.#view.getInt32(this.#skip(4), true);
  }

  uint32(): number {
    return this.#view.getUint32(this.#skip(4), true);
  }

  float64(): number {
    return this.#view.getFloat64(this.#skip(8), false);
  }

  text(length: number): string {
    return new TextDecoder().decode(this.#take(length));
  }

  line(): string {
    const end = this.#bytes.indexOf(0x0a, this.#at);
    if (end < 0) throw this.corrupt('it ends inside a name');
    const text = this.text(end - this.#at);
    this.#at = end + 1;
    return text;
  }

  /** Little-endian two's complement, as LONG1 writes it; numbers that JavaScript cannot hold exactly do not occur. */
  long(length: number): number {
    const digits = this.#take(length);
    let value = 0n;
    for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(digits[i]!);
    const number = Number(BigInt.asIntN(8 * length, value));
    if (!Number.isSafeInteger(number)) throw this.corrupt('it holds a number beyond 2^53');
    return number;
  }

  global(module: string, name: string): void {
    const full = `${module} ${name}`;
    if (!CALLED.has(full) && !STORAGE_NAME.test(full)) {
      throw this.#refused(`it names ${module}.${name}, which would run on loading; covey makes state dicts only`);
    }
    this.push({ kind: 'global', name: full });
  }

  /** `callable(*args)`, for the three that exist. */
  reduce(): void {
    const args = this.pop();
    const callable = this.pop();
    const name = isKind(callable, 'global') ? callable.name : undefined;
    if (!Array.isArray(args)) throw this.corrupt('a call has no tuple of arguments');
    if (name === ORDERED_DICT && args.length === 0) this.push(new Map());
    else if (name === REBUILD_PARAMETER && args[0] instanceof TensorView) this.push(args[0]);
    else if (name === REBUILD_TENSOR) this.push(this.#tensor(args));
    else throw this.#refused('it makes an object of a kind that state dicts do not have');
  }

  /** State that is set on an object: only the version table that torch hangs on a state dict, which is not needed. */
  build(): void {
    this.pop();
    if (!(this.top() instanceof Map)) throw this.#refused('it sets the state of an object that is no dict');
  }

  /** `('storage', type, key, location, elements)`, torch's only persistent id. */
  persistent(): void {
    const id = this.pop();
    if (!Array.isArray(id) || id[0] !== 'storage')
      throw this.#refused('it refers to something outside that is no storage');
    const [, type, key, , elements] = id;
    const name = isKind(type, 'global') ? STORAGE_NAME.exec(type.name)?.[1] : undefined;
    if (name === undefined || typeof key !== 'string' || !/^\d+$/.test(key) || !isSize(elements)) {
      throw this.corrupt('a storage is malformed');
    }
    this.push({ kind: 'storage', type: name, key, elements });
  }

  setItems(pairs: readonly PickleValue[]): void {
    const target = this.top();
    if (!(target instanceof Map) || pairs.length % 2 !== 0)
      throw this.corrupt('items are set on something that is no dict');
    for (let i = 0; i < pairs.length; i += 2) target.set(pairs[i]!, pairs[i + 1]!);
  }

  append(values: readonly PickleValue[]): void {
    const target = this.top();
    if (!Array.isArray(target)) throw this.corrupt('values are appended to something that is no list');
    for (const value of values) target.push(value);
  }

  #tensor([storage, offset, shape, strides]: readonly PickleValue[]): TensorView {
    const isSizes = (value: unknown): value is number[] => Array.isArray(value) && value.every(isSize);
    if (!isKind(storage, 'storage') || !isSize(offset) || !isSizes(shape) || !isSizes(strides)) {
      throw this.corrupt('a tensor is malformed');
    }
    const last = shape.reduce((sum, size, i) => sum + (size - 1) * strides[i]!, offset);
    const empty = shape.includes(0);
    if (shape.length !== strides.length || shape.length > 16 || (!empty && !(last < storage.elements))) {
      throw this.corrupt(`a tensor [${shape}] reaches beyond its storage of ${storage.elements} values`);
    }
    return new TensorView(storage, offset, shape, strides);
  }

  #skip(length: number): number {
    const at = this.#at;
    if (at + length > this.#bytes.length) throw this.corrupt('it ends in the middle');
    this.#at += length;
    return at;
  }

  #take(length: number): Uint8Array {
    const at = this.#skip(length);
    return this.#bytes.subarray(at, at + length);
  }

  corrupt(reason: string): CoveyError {
    return new CoveyError('DATA_CORRUPT', `Cannot read the pickle of ${this.#file}: ${reason}; fetch the file again`);
  }

  #refused(reason: string): CoveyError {
    return new CoveyError(
      'UNSUPPORTED',
      `Cannot read the pickle of ${this.#file}: ${reason}; save the plain state dict, or better safetensors`,
    );
  }
}

function isKind<K extends 'global' | 'storage'>(
  value: PickleValue | undefined,
  kind: K,
): value is Extract<PickleValue, { readonly kind: K }> {
  return typeof value === 'object' && value !== null && 'kind' in value && value.kind === kind;
}

const isSize = (value: unknown): value is number =>
  typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;

/** By opcode byte. A missing one is refused. */
const OPERATIONS: Readonly<Record<number, (reader: PickleReader) => void>> = {
  // PROTO, FRAME: nothing to do but to read past them.
  128: (r) => r.byte(),
  149: (r) => r.text(8),
  40: (r) => r.mark(),
  // NONE, NEWTRUE, NEWFALSE
  78: (r) => r.push(null),
  136: (r) => r.push(true),
  137: (r) => r.push(false),
  // BININT, BININT1, BININT2, LONG1, BINFLOAT
  74: (r) => r.push(r.int32()),
  75: (r) => r.push(r.byte()),
  77: (r) => r.push(r.uint16()),
  138: (r) => r.push(r.long(r.byte())),
  71: (r) => r.push(r.float64()),
  // BINUNICODE, SHORT_BINUNICODE
  88: (r) => r.push(r.text(r.uint32())),
  140: (r) => r.push(r.text(r.byte())),
  // EMPTY_DICT, EMPTY_LIST, EMPTY_TUPLE
  125: (r) => r.push(new Map()),
  93: (r) => r.push([]),
  41: (r) => r.push([]),
  // TUPLE, TUPLE1, TUPLE2, TUPLE3
  116: (r) => r.push(r.popToMark()),
  133: (r) => r.push([r.pop()]),
  134: (r) => r.push([r.pop(), r.pop()].reverse()),
  135: (r) => r.push([r.pop(), r.pop(), r.pop()].reverse()),
  // APPEND, APPENDS, SETITEM, SETITEMS
  97: (r) => r.append([r.pop()]),
  101: (r) => r.append(r.popToMark()),
  115: (r) => r.setItems([r.pop(), r.pop()].reverse()),
  117: (r) => r.setItems(r.popToMark()),
  // BINPUT, LONG_BINPUT, MEMOIZE, BINGET, LONG_BINGET
  113: (r) => r.remember(r.byte()),
  114: (r) => r.remember(r.uint32()),
  148: (r) => r.remember(r.memoSize),
  104: (r) => r.recall(r.byte()),
  106: (r) => r.recall(r.uint32()),
  // GLOBAL, STACK_GLOBAL
  99: (r) => r.global(r.line(), r.line()),
  147: (r) => {
    const name = r.pop();
    const module = r.pop();
    if (typeof name !== 'string' || typeof module !== 'string') throw r.corrupt('a global has no name');
    r.global(module, name);
  },
  // REDUCE, BUILD, BINPERSID
  82: (r) => r.reduce(),
  98: (r) => r.build(),
  81: (r) => r.persistent(),
};
