/** The engine's public face: what models and workers import. */
export type { AdamWUpdate, Engine } from './engine.ts';
export { type EngineOptions, loadEngine } from './load-engine.ts';
export { type AttentionOptions, attention } from './ops/attention.ts';
export { embedding } from './ops/embedding.ts';
export { gelu, quickGelu } from './ops/gelu.ts';
export { l2Normalize } from './ops/l2-normalize.ts';
export { addLayerNorm, layerNorm } from './ops/layer-norm.ts';
export { linear } from './ops/linear.ts';
export { type PixelOptions, patchify, pixelsToTensor } from './ops/pixels.ts';
export { type Precision, toCompute, toFloat32 } from './ops/precision.ts';
export { addTokenAndPosition, selectTokens } from './ops/tokens.ts';
export { AdamW, type AdamWOptions } from './optim/adamw.ts';
export { type GradientListener, type Recording, recordForward } from './tape.ts';
export type { Tensor, Tensor1D, Tensor2D, Tensor3D, Tensor4D, Variable } from './tf.ts';
export * as tf from './tf.ts';
