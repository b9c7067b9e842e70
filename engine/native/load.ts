import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { packageRoot } from '../../common/built-module.ts';
import { CoveyError } from '../../common/errors.ts';

/** A tensor inside the addon; a small integer, valid in this thread until released. */
export type Handle = number;

/** ATen's numbers for storage types. */
export const SCALAR_TYPES = {
  uint8: 0,
  int32: 3,
  int64: 4,
  float32: 6,
  float64: 7,
  complex64: 9,
  bool: 11,
  bfloat16: 15,
} as const;

/** What `profileStop` hands over; the arrays' layout is in profile.h. */
export interface NativeProfile {
  readonly names: readonly string[];
  readonly name: Uint32Array;
  readonly started: Float64Array;
  readonly ended: Float64Array;
  readonly details: Float64Array;
  readonly detailsEnd: Uint32Array;
  readonly dropped: number;
}

/** What every optimiser kernel begins with. A kernel without a slot takes null for it. */
export type UpdateArguments = readonly [
  parameters: readonly Handle[],
  firstSlots: readonly Handle[] | null,
  secondSlots: readonly Handle[] | null,
  /** One flat array; on a GPU also one tensor a parameter (`adamW` alone). */
  gradient: Float32Array | readonly Handle[],
  gradientScale: number,
  offsets: readonly number[],
  /** bf16 copies to keep up to date. */
  halves: readonly (Handle | null)[],
];

type LambArguments = readonly [
  weightDecays: readonly number[],
  beta1: number,
  beta2: number,
  eps: number,
  step: number,
  biasCorrection: boolean,
];

/**
 * The C++ surface (engine/native/*.cc). Every returned handle is the caller's to release; arguments stay the caller's. Errors are JavaScript
 * exceptions with code `ATEN`. Shapes and formulas are documented at the C++ functions.
 */
export interface Addon {
  /** [rank, ...shape] of the first tensor that the last `call` returned. */
  readonly meta: Int32Array;
  describe(): string;
  setThreads(count: number): number;
  /** How many devices of libtorch's this name (`cuda`) this addon could use. */
  deviceCount(name: string): number;
  /** Where this thread's tensors are made from now on; others must be gone. */
  setDevice(name: string, index: number): void;
  /** `cpu`, `cuda:0`. */
  device(): string;
  /** Products on GPUs, for the process: TF32 for fp32 operands; only kernels whose sums have a fixed order. */
  setDeviceMath(tf32: boolean, deterministic: boolean): void;
  /** Calls go to compositions of libtorch's operators instead of the own kernels (generic.h). Always so on a GPU. */
  setGeneric(on: boolean): void;
  /** Waits until the device has done what was queued. */
  synchronize(): void;
  /** libtorch's own trace of this thread and the GPU; `traceStop` writes it in Chrome's format. */
  traceStart(): void;
  traceStop(file: string): void;
  /** [live, peak, reserved] bytes: of the GPU's tensors, or of CPU tensors in this process. */
  memoryStats(): Float64Array;
  resetPeakMemory(): void;

  lookup(name: string, overload: string): number;
  call(operator: number, ...args: unknown[]): any;

  fromTyped(values: ArrayBufferView, shape: readonly number[], scalarType: number): Handle;
  toTyped(tensor: Handle): Float32Array | Int32Array | Uint8Array | Float64Array;
  readInto(tensor: Handle, out: Float32Array): void;
  addInto(tensor: Handle, out: Float32Array): void;
  writeFrom(tensor: Handle, values: Float32Array): void;
  shape(tensor: Handle): number[];
  scalarType(tensor: Handle): number;
  castTo(tensor: Handle, scalarType: number): Handle;
  alias(tensor: Handle): Handle;
  release(tensor: Handle): void;
  live(): number;

  /** Starts recording this thread's calls; `inner` also the ATen operators inside them. */
  profileStart(inner: boolean): void;
  /** Fills `out` with [nanoseconds since profileStart, live bytes, peak bytes since the last mark]. */
  profileMark(out: Float64Array): void;
  profileStop(): NativeProfile;
  sumOfSquares(values: Float32Array): number;
  addVectors(target: Float32Array, source: Float32Array): void;
  digest(tensors: readonly Handle[]): string;
  adamW(
    ...update: [
      ...UpdateArguments,
      weightDecays: readonly number[],
      rates: readonly number[],
      beta1: number,
      beta2: number,
      eps: number,
      step: number,
    ]
  ): void;
  momentum(
    ...update: [
      ...UpdateArguments,
      weightDecays: readonly number[],
      trusts: readonly number[],
      rates: readonly number[],
      momentum: number,
      nesterov: boolean,
    ]
  ): void;
  lion(
    ...update: [
      ...UpdateArguments,
      weightDecays: readonly number[],
      rates: readonly number[],
      beta1: number,
      beta2: number,
    ]
  ): void;
  /** Per parameter ‖p‖, ‖g‖ and ‖g + λ·p‖ into `out`. */
  gradientNorms(...update: [...UpdateArguments, weightDecays: readonly number[], out: Float64Array]): void;
  /** Advances the moments; per parameter ‖p‖ and ‖u‖ into `out`. */
  lambMoments(...update: [...UpdateArguments, ...LambArguments, out: Float64Array]): void;
  lambStep(...update: [...UpdateArguments, ...LambArguments, rates: readonly number[]]): void;
  averageInto(averages: readonly Handle[], values: readonly Handle[], weight: number): void;

  linear(x: Handle, weight: Handle, bias: Handle | null): Handle;
  /** gelu(x·weightᵀ + bias), and gelu's slope there where it is asked for. */
  linearGelu(
    x: Handle,
    weight: Handle,
    bias: Handle | null,
    quick: boolean,
    withSlope: boolean,
  ): [y: Handle, slope: Handle | null];
  linearInputGradient(dy: Handle, weight: Handle): Handle;
  /** Of z in linear(gelu(z)), from gelu's slope at z. */
  geluLinearInputGradient(dy: Handle, weight: Handle, slope: Handle): Handle;
  linearWeightGradient(dy: Handle, x: Handle): Handle;
  sumRows(dy: Handle): Handle;
  layerNorm(
    x: Handle,
    delta: Handle | null,
    weight: Handle,
    bias: Handle,
    eps: number,
  ): [sum: Handle | null, y: Handle, statistics: Handle];
  layerNormGradient(
    dy: Handle,
    dsum: Handle | null,
    x: Handle,
    statistics: Handle,
    weight: Handle,
  ): [dx: Handle, dweight: Handle, dbias: Handle];
  gelu(x: Handle, quick: boolean, withSlope: boolean): [y: Handle, slope: Handle | null];
  geluGradient(dy: Handle, slope: Handle): Handle;
  /** `kept` is for the gradient; the own kernel needs nothing more. */
  attention(qkv: Handle, heads: number, causal: boolean): [out: Handle, logSumExp: Handle, ...kept: (Handle | null)[]];
  attentionGradient(
    dOut: Handle,
    qkv: Handle,
    logSumExp: Handle,
    heads: number,
    causal: boolean,
    kept: readonly (Handle | null)[],
  ): Handle;
  pixels(
    pixels: Uint8Array,
    shape: readonly number[],
    scale: Float32Array,
    shift: Float32Array,
    bfloat16: boolean,
  ): Handle;
  embedding(table: Handle, ids: Handle): Handle;
  embeddingGradient(dy: Handle, ids: Handle, vocabulary: number): Handle;
  addTokenAndPosition(x: Handle, token: Handle | null, position: Handle): Handle;
  positionGradient(dy: Handle): Handle;
  selectTokens(x: Handle, index: Int32Array): Handle;
  selectTokensGradient(dy: Handle, index: Int32Array, tokens: number, scalarType: number): Handle;
  similarityLogSumExp(query: Handle, keys: Handle, scale: number): Handle;
  similarityWeights(
    query: Handle,
    keys: Handle,
    scale: number,
    queryLse: Handle,
    keyLse: Handle,
  ): [sum: Handle, logits: Handle];
  similaritySigmoids(
    query: Handle,
    keys: Handle,
    scale: number,
    bias: number,
  ): [keys: Handle, sigmoid: Handle, scaled: Handle, loss: Handle];
  l2Normalize(x: Handle, normMin: number): [y: Handle, norms: Handle];
  l2NormalizeGradient(dy: Handle, y: Handle, norms: Handle, scalarType: number): Handle;

  convWeight(weight: Handle, scalarType: number): Handle;
  conv2d(x: Handle, weight: Handle, stride: number, padding: number): Handle;
  conv2dGradient(
    dy: Handle,
    x: Handle,
    weight: Handle,
    stride: number,
    padding: number,
    wantX: boolean,
    wantWeight: boolean,
  ): [dx: Handle | null, dweight: Handle | null];
  relu(x: Handle): Handle;
  reluGradient(dy: Handle, y: Handle): Handle;
  batchNorm(
    x: Handle,
    residual: Handle | null,
    weight: Handle,
    bias: Handle,
    runningMean: Handle,
    runningVariance: Handle,
    training: boolean,
    momentum: number,
    eps: number,
    relu: boolean,
  ): [y: Handle, statistics: Handle];
  batchNormGradient(
    dy: Handle,
    x: Handle,
    y: Handle | null,
    statistics: Handle,
    weight: Handle,
    bias: Handle,
    training: boolean,
    relu: boolean,
  ): [dx: Handle, dweight: Handle, dbias: Handle, dresidual: Handle | null];
  maxPool2d(x: Handle, size: number, stride: number, padding: number): [y: Handle, winner: Handle];
  maxPool2dGradient(
    dy: Handle,
    winner: Handle,
    inputShape: readonly number[],
    size: number,
    stride: number,
    padding: number,
    scalarType: number,
  ): Handle;
  globalAveragePool(x: Handle): Handle;
  globalAveragePoolGradient(dy: Handle, inputShape: readonly number[], scalarType: number): Handle;
}

/** Where scripts/build-addon.mjs puts the addon: COVEY_ADDON, or build/covey_engine.node. */
export function addonPath(): string {
  const named = process.env['COVEY_ADDON'];
  return named ? path.resolve(named) : path.join(packageRoot(), 'build', 'covey_engine.node');
}

let loaded: Addon | undefined;

/**
 * Loads the addon, once per thread.
 *
 * @throws UNSUPPORTED where it is absent or its libraries do not load.
 */
export function loadAddon(): Addon {
  if (loaded !== undefined) return loaded;
  const file = addonPath();
  const advice =
    'run `npm run build` after `apt-get install -y libtorch-dev libopenblas0-openmp g++`, or use the engine `wasm`';
  if (!existsSync(file)) {
    throw new CoveyError('UNSUPPORTED', `Cannot load the torch engine: ${file} is missing; ${advice}`, {
      fields: { file },
    });
  }
  try {
    loaded = createRequire(import.meta.url)(file) as Addon;
    return loaded;
  } catch (thrown) {
    const reason = CoveyError.from(thrown).message;
    throw new CoveyError('UNSUPPORTED', `Cannot load the torch engine: ${reason}; ${advice}`, {
      cause: thrown,
      fields: { file },
    });
  }
}
