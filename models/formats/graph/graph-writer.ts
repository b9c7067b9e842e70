import type { HostTensor } from '../safetensors.ts';

/** `batch` and `tokens` are left open where the format can: how many pictures or captions, and how long the captions of a batch are. */
export type Dimension = number | 'batch' | 'tokens';

export interface ConvolutionOptions {
  readonly stride: number;
  /** Zeros on each side. */
  readonly padding: number;
}

/**
 * What the towers are made of, as a format writes it down: the towers are described once (vision-graph.ts, text-graph.ts), each format
 * brings a writer. `V` is the format's handle of a value. Shapes: B batch, T tokens, D width, H heads, E embedding.
 */
export interface GraphWriter<V> {
  /** Normalised pixels in the format's own order of axes. */
  pixels(imageSize: number): V;
  /** Token ids [B,T]. */
  tokenIds(contextLength: number): V;
  /** A constant under a name that is used once. */
  constant(name: string, tensor: HostTensor): V;

  /** Each patch as a row of the kernel [D,3,P,P] sees it: [B,T,D]. */
  patches(pixels: V, name: string, kernel_DCPP: HostTensor, patches: number): V;
  /** Over places, in the format's own order of axes. */
  convolution(x: V, name: string, kernel_OIPP: HostTensor, bias_O: HostTensor, options: ConvolutionOptions): V;
  /** Of values that are nowhere negative, so that padding with zeros changes nothing. */
  maxPool(x: V, options: ConvolutionOptions & { readonly size: number }): V;
  /** Of squares of `size` places that do not overlap and leave nothing out. */
  meanPool(x: V, size: number): V;
  relu(x: V): V;
  /** The mean over all places: [B, channels]. */
  meanPlace(x: V): V;
  /** Every place as a token: [B,T,channels]. */
  placeTokens(x: V, places: number, channels: number): V;
  /** Rows of a table [vocabulary, D] by id. */
  rows(name: string, table_VD: HostTensor, ids: V): V;
  /** x·Wᵀ + b over the last axis; W is [outputs, inputs]. */
  linear(x: V, name: string, weight_OI: HostTensor, bias_O: HostTensor | null): V;
  layerNorm(x: V, name: string, weight_D: HostTensor, bias_D: HostTensor, eps: number): V;

  add(a: V, b: V): V;
  multiply(a: V, b: V): V;
  /** Over the last two axes; the others are the same. */
  matMul(a: V, b: V): V;
  softmax(x: V): V;
  gelu(x: V): V;
  quickGelu(x: V): V;
  /** x / ‖x‖₂ over the last axis. */
  l2Normalize(x: V): V;
  reshape(x: V, shape: readonly Dimension[]): V;
  transpose(x: V, axes: readonly number[]): V;

  /** A row of zeros before the others: [B,T,D] → [B,T+1,D]. */
  zeroTokenFirst(x: V): V;
  /** [B,S,D] before [B,T,D]: [B,S+T,D]. */
  joinTokens(first: V, rest: V): V;
  /** [B,T,D] → [B,D]. */
  firstToken(x: V): V;
  /** The mean over the tokens from `first` on: [B,T,D] → [B,D]. */
  meanToken(x: V, first: number): V;
  /** [B,T,D] → [B,D]: each caption's row of its first largest id. */
  endToken(x: V, ids: V): V;
  /** The first T rows of [contextLength, D], or of both axes of [contextLength, contextLength]. */
  cutToTokens(x: V, ids: V, shape: readonly Dimension[]): V;
}

/** A tower's weights by open_clip key. */
export type TensorLookup = (name: string) => HostTensor;
