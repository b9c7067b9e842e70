/**
 * What each engine can do, known without loading it, so that a run is refused before it starts and not in its first step. Free of imports on
 * purpose: the command line asks it too.
 */

export type EngineName = 'torch' | 'tensorflow' | 'wasm' | 'cpu';

/** Every engine, the fastest first. `auto` takes the first of `torch` and `wasm` that loads; the others must be asked for. */
export const ENGINE_NAMES = ['torch', 'tensorflow', 'wasm', 'cpu'] as const satisfies readonly EngineName[];

export interface EngineCapabilities {
  /** Can train, or why not. */
  readonly train: true | string;
  /** Storage of activations: `bf16` in a config means fp32 where it is absent here. */
  readonly precisions: readonly ('fp32' | 'bf16')[];
  /** The same lane on the same kind of processor gives the same bits in every process, at one thread count. */
  readonly deterministic: boolean;
  /** Whether more than one thread can be used. */
  readonly threads: boolean;
  /** Rough sustained products per second of one thread, in multiply-adds, for estimates only. */
  readonly multiplyAddsPerSecond: number;
  /** Largest memory that tensors can take, in bytes. */
  readonly memoryBytesMax: number;
  /** Where it comes from, for messages. */
  readonly install: string;
}

const CAPABILITIES: Readonly<Record<EngineName, EngineCapabilities>> = {
  torch: {
    train: true,
    precisions: ['fp32', 'bf16'],
    deterministic: true,
    threads: true,
    multiplyAddsPerSecond: 3e10,
    memoryBytesMax: Number.POSITIVE_INFINITY,
    install: 'apt-get install -y libtorch-dev libopenblas0-openmp g++ && npm run build',
  },
  tensorflow: {
    train: true,
    precisions: ['fp32'],
    deterministic: true,
    threads: true,
    multiplyAddsPerSecond: 6e9,
    memoryBytesMax: Number.POSITIVE_INFINITY,
    install: 'npm run tensorflow:build, or npm install @tensorflow/tfjs-node where its download host is reachable',
  },
  wasm: {
    train: true,
    precisions: ['fp32'],
    deterministic: true,
    threads: false,
    multiplyAddsPerSecond: 1.4e9,
    memoryBytesMax: 2 ** 32 - 2 ** 16,
    install: 'npm ci',
  },
  cpu: {
    train: true,
    precisions: ['fp32'],
    deterministic: true,
    threads: false,
    multiplyAddsPerSecond: 2e8,
    memoryBytesMax: Number.POSITIVE_INFINITY,
    install: 'npm ci',
  },
};

export function engineCapabilities(engine: EngineName): EngineCapabilities {
  return CAPABILITIES[engine];
}

/**
 * Settings that TensorFlow reads from the process's environment when it is loaded. They must be set on the main thread: what a worker
 * thread writes into `process.env` is its own copy.
 */
export function tensorflowEnvironment(threads: number): Readonly<Record<string, string>> {
  return {
    TF_NUM_INTRAOP_THREADS: String(threads),
    TF_NUM_INTEROP_THREADS: '1',
    TF_CPP_MIN_LOG_LEVEL: '2',
    TF_DETERMINISTIC_OPS: '1',
  };
}
