import { createRequire } from 'node:module';
import path from 'node:path';
import { type HostAccess, registerFallbacks } from './backend/fallback.ts';
import { registerFilterGradient } from './backend/filter-gradient.ts';
import { requireOnOurCore } from './backend/our-core.ts';
import { replaceSegmentSum } from './backend/segment-sum.ts';
import { engineCapabilities } from './capabilities.ts';
import { countedStorage, type StoredData } from './counted-storage.ts';
import type { EngineMemory } from './engine.ts';
import { InPlaceEngine } from './host-engine.ts';
import { allocationError } from './out-of-memory.ts';
import {
  type BackendValues,
  backend,
  type DataType,
  findBackend,
  getKernel,
  type KernelBackend,
  registerKernel,
  setBackend,
  type Tensor,
  type TensorInfo,
  unregisterKernel,
  util,
  version_core,
} from './tf.ts';

const PACKAGE = '@tensorflow/tfjs-backend-wasm';

interface WasmPackage {
  setWasmPaths(folder: string): void;
}

interface WasmRecord {
  id: number;
  /** null for strings, which are kept outside of the WebAssembly memory. */
  readonly memoryOffset: number | null;
  readonly shape: number[];
  readonly dtype: DataType;
}

interface WasmBackend extends HostAccess {
  move(dataId: object, values: BackendValues | null, shape: number[], dtype: DataType, references: number): void;
  readonly dataIdMap: StoredData<WasmRecord>;
  dataIdNextNumber: number;
  readonly wasm: {
    readonly HEAPU8: Uint8Array;
    readonly tfjs: {
      registerTensor(id: number, size: number, memoryOffset: number | null): void;
      disposeData(id: number): void;
    };
  };
  /** A view of the tensor's bytes; a later op may move the memory away from under it. */
  typedArrayFromHeap(tensor: Tensor): Float32Array;
}

/** Registers tfjs's WebAssembly backend on our core on first use in this thread and makes it current. */
export async function useWasmBackend(): Promise<void> {
  if (!findBackend('wasm')) {
    const file = createRequire(import.meta.url).resolve(`${PACKAGE}/dist/tf-backend-wasm.node.js`);
    const { setWasmPaths } = requireOnOurCore(file) as WasmPackage;
    setWasmPaths(`${path.dirname(file)}${path.sep}`);
    await withoutNewProcessListeners(async () => setBackend('wasm'));
    refuseFailedAllocations(wasmBackend());
    transposeBeforeMatMul();
    registerFilterGradient('wasm');
    replaceSegmentSum();
    registerFallbacks('wasm', wasmBackend());
  }
  await setBackend('wasm');
}

function wasmBackend(): WasmBackend {
  return backend() as unknown as WasmBackend;
}

function bytesOf({ memoryOffset, shape, dtype }: WasmRecord): number {
  return memoryOffset === null ? 0 : util.sizeFromShape(shape) * util.bytesPerElement(dtype);
}

/** tfjs takes no look at what malloc returns: where there was no memory left it would write over what lies at address 0. */
function refuseFailedAllocations(wasm: WasmBackend): void {
  const move = wasm.move.bind(wasm);
  wasm.move = (dataId, values, shape, dtype, references) => {
    if (dtype === 'string') return move(dataId, values, shape, dtype, references);
    const bytes = util.sizeFromShape(shape) * util.bytesPerElement(dtype);
    // malloc gets the lower 32 bits of a number: it need not fail where there are more.
    const fits = bytes <= engineCapabilities('wasm').memoryBytesMax;
    move(dataId, null, fits ? shape : [0], dtype, references);
    const { id, memoryOffset } = wasm.dataIdMap.get(dataId);
    if (!fits || memoryOffset === 0) {
      wasm.dataIdMap.delete(dataId);
      wasm.wasm.tfjs.disposeData(id);
      const reason = `cannot allocate ${bytes} bytes: a WebAssembly memory, which has 4 GiB at most, is out of memory`;
      throw allocationError(new Error(reason));
    }
    if (values === null || values === undefined) return;
    const { buffer, byteOffset } = values as Float32Array;
    wasm.wasm.HEAPU8.set(new Uint8Array(buffer, byteOffset, bytes), memoryOffset!);
  };
}

/** Emscripten's start-up code puts handlers on the process that rethrow what others may want to handle: they are taken off again. */
async function withoutNewProcessListeners(work: () => Promise<unknown>): Promise<void> {
  const events = ['uncaughtException', 'unhandledRejection'] as const;
  const before = new Map(events.map((event) => [event, process.listeners(event as never)]));
  await work();
  for (const event of events) {
    for (const listener of process.listeners(event as never)) {
      if (!before.get(event)!.includes(listener)) process.off(event, listener as () => void);
    }
  }
}

/** Products of transposed operands take a plain triple loop in the WebAssembly kernel, all others XNNPACK: so they are transposed first. */
function transposeBeforeMatMul(): void {
  const { kernelFunc: matMul } = getKernel('BatchMatMul', 'wasm');
  const { kernelFunc: transpose } = getKernel('Transpose', 'wasm');
  unregisterKernel('BatchMatMul', 'wasm');
  registerKernel({
    kernelName: 'BatchMatMul',
    backendName: 'wasm',
    kernelFunc: ({ inputs, attrs, backend: wasm }) => {
      const made: TensorInfo[] = [];
      const straight = (x: TensorInfo, transposed: boolean): TensorInfo => {
        if (!transposed) return x;
        const rank = x.shape.length;
        const perm = [...x.shape.keys()].map((axis) => (axis < rank - 2 ? axis : 2 * rank - 3 - axis));
        const result = transpose({ inputs: { x }, attrs: { perm }, backend: wasm }) as TensorInfo;
        made.push(result);
        return result;
      };
      const { transposeA, transposeB } = attrs as unknown as { transposeA: boolean; transposeB: boolean };
      try {
        const operands = {
          a: straight(inputs['a'] as TensorInfo, transposeA),
          b: straight(inputs['b'] as TensorInfo, transposeB),
        };
        return matMul({ inputs: operands, attrs: { transposeA: false, transposeB: false }, backend: wasm });
      } finally {
        for (const { dataId } of made) (wasm as KernelBackend).disposeData(dataId);
      }
    },
  });
}

/** tfjs's WebAssembly kernels (SIMD, one thread): no native library, several times the speed of `cpu`. Needs the `wasm` backend to be current. */
export class WasmEngine extends InPlaceEngine {
  readonly name = 'wasm';
  readonly description = `tfjs ${version_core} WebAssembly kernels, 1 thread`;

  constructor() {
    super(countedStorage(wasmBackend().dataIdMap, bytesOf));
  }

  /** The WebAssembly memory never shrinks. */
  override memory(): EngineMemory {
    return { ...super.memory(), reservedBytes: wasmBackend().wasm.HEAPU8.byteLength };
  }

  /** A new identity each time: matMul keeps a packed copy of its second operand under the old one, which a write would not reach. */
  protected writable(tensor: Tensor): Float32Array {
    const wasm = wasmBackend();
    const record = wasm.dataIdMap.get(tensor.dataId);
    wasm.wasm.tfjs.disposeData(record.id);
    record.id = wasm.dataIdNextNumber++;
    wasm.wasm.tfjs.registerTensor(record.id, tensor.size, record.memoryOffset);
    return wasm.typedArrayFromHeap(tensor);
  }
}
