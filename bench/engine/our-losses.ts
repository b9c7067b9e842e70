import type { TextConfig, VisionConfig } from '../../common/config/run-config.ts';
import {
  addTokenAndPosition,
  l2Normalize,
  layerNorm,
  linear,
  type Tensor,
  type Tensor1D,
  type Tensor2D,
  type Tensor3D,
  type Tensor4D,
  tf,
  toCompute,
  toFloat32,
} from '../../engine/index.ts';
import { textBatch, textFeatures } from '../../models/clip/text-tower.ts';
import { LAYER_NORM_EPS, type ParameterLookup, transformerPooled } from '../../models/clip/transformer.ts';
import { newBackbone } from '../../models/vision/backbone.ts';
import { batchNormLayer } from '../../models/vision/batch-norm-layer.ts';
import type { Precision, StepSpec } from './protocol.ts';
import { hashIntegers, hashValues } from './values.ts';

/** Shapes: B items, N patches of P numbers, T tokens, D width, E embedding width, C classes. */

/** Scale of the cosines in the towers' loss. */
const COSINE_SCALE = 10;
/** Seeds of what is not a parameter; bench/peers/engine_steps.py has the same. */
const SEEDS = { input: 10_001, target: 10_002 };

/** What a loss is computed from, the same in every step. */
export class StepInputs {
  readonly #held: Tensor[] = [];
  readonly #precision: Precision;
  readonly #batch: number;

  constructor({ batch }: StepSpec, precision: Precision) {
    this.#batch = batch;
    this.#precision = precision;
  }

  /** Activations in compute storage, as `pixelsToTensor` makes them. */
  activations(...sides: number[]): Tensor {
    const shape = [this.#batch, ...sides];
    const count = shape.reduce((product, side) => product * side, 1);
    return this.#hold(() => toCompute(tf.tensor(hashValues(SEEDS.input, count, 1.5), shape), this.#precision));
  }

  /** One class per item, spread over all of them. */
  classes_BC(classes: number): Tensor {
    const labels = Int32Array.from({ length: this.#batch }, (_, i) => (i * 7) % classes);
    return this.#hold(() => tf.cast(tf.oneHot(tf.tensor1d(labels, 'int32'), classes), 'float32'));
  }

  /** One fixed embedding of unit length per item. */
  targets_BE(embedDim: number): Tensor2D {
    const values = hashValues(SEEDS.target, this.#batch * embedDim, 1);
    return this.#hold(() => l2Normalize(tf.tensor2d(values, [this.#batch, embedDim]))) as Tensor2D;
  }

  diagonal_BB(): Tensor {
    return this.#hold(() => tf.eye(this.#batch));
  }

  close(): void {
    tf.dispose(this.#held);
  }

  #hold(make: () => Tensor): Tensor {
    const tensor = tf.keep(tf.tidy(make));
    this.#held.push(tensor);
    return tensor;
  }
}

/** The small ViT's cross entropy. */
export function transformerLoss({ sizes }: StepSpec, parameter: ParameterLookup, inputs: StepInputs): () => Tensor {
  const x_BNP = inputs.activations(sizes['patches']!, sizes['patch']!);
  const labels_BC = inputs.classes_BC(sizes['classes']!);
  return () => crossEntropy(classLogits(x_BNP, parameter, sizes), labels_BC);
}

export function imageTowerLoss(
  { sizes }: StepSpec,
  parameter: ParameterLookup,
  inputs: StepInputs,
  precision: Precision,
): () => Tensor {
  const backbone = newBackbone({ ...sizes, mlpRatio: 4 } as unknown as VisionConfig);
  const x_BHWC = inputs.activations(backbone.imageSize, backbone.imageSize, 3) as Tensor4D;
  const normalise = batchNormLayer(parameter);
  const tower = { parameter, precision, quickGelu: false, recomputedBlocks: 0, normalise };
  const loss = cosineLoss(sizes['embedDim']!, inputs);
  return () => loss(backbone.project(backbone.features(x_BHWC, tower), parameter));
}

export function textTowerLoss(
  { sizes, batch }: StepSpec,
  parameter: ParameterLookup,
  inputs: StepInputs,
  precision: Precision,
): () => Tensor {
  const text = { ...sizes, mlpRatio: 4 } as unknown as TextConfig;
  const ids = captions(batch, text);
  const loss = cosineLoss(sizes['embedDim']!, inputs);
  return () =>
    loss(
      textFeatures(textBatch(ids, batch, text), parameter, text, { precision, quickGelu: false, recomputedBlocks: 0 }),
    );
}

/** Softmax cross entropy of scaled cosines against the items' fixed embeddings. */
function cosineLoss(embedDim: number, inputs: StepInputs): (features_BE: Tensor2D) => Tensor {
  const targets_BE = inputs.targets_BE(embedDim);
  const diagonal_BB = inputs.diagonal_BB();
  return (features_BE) => {
    const cosines_BB = tf.matMul(l2Normalize(features_BE) as Tensor2D, targets_BE, false, true);
    return crossEntropy(tf.mul(cosines_BB, COSINE_SCALE), diagonal_BB);
  };
}

/** Full-length captions: the largest id, which ends a caption, is the last. */
function captions(batch: number, { contextLength, vocabSize }: TextConfig): Int32Array {
  const ids = hashIntegers(SEEDS.input, batch * contextLength, vocabSize - 1);
  for (let row = 1; row <= batch; row++) ids[row * contextLength - 1] = vocabSize - 1;
  return ids;
}

/** Patches, class token and positions, blocks, norm, mean over the tokens, classifier. */
function classLogits(x_BNP: Tensor, parameter: ParameterLookup, sizes: StepSpec['sizes']): Tensor2D {
  const tokens_BTD = tf.tidy(() => {
    const patches_BND = linear(x_BNP, parameter<Tensor2D>('patch.weight'), parameter<Tensor1D>('patch.bias'));
    const positions_TD = parameter<Tensor2D>('position');
    return addTokenAndPosition(patches_BND as Tensor3D, parameter<Tensor1D>('token.embedding'), positions_TD);
  });
  const x_BTD = transformerPooled(tokens_BTD, parameter, {
    prefix: 'blocks',
    layers: sizes['layers']!,
    heads: sizes['heads']!,
    causal: false,
    quickGelu: false,
    pooledToken: null,
    recomputedBlocks: 0,
  });
  const norm = [parameter<Tensor1D>('norm.weight'), parameter<Tensor1D>('norm.bias')] as const;
  const normed_BTD = layerNorm(x_BTD, ...norm, LAYER_NORM_EPS);
  const mean_BD = tf.mean(toFloat32(normed_BTD), 1);
  return linear(mean_BD, parameter<Tensor2D>('head.weight'), parameter<Tensor1D>('head.bias')) as Tensor2D;
}

/** Mean over the rows of −Σ target · log softmax(logits). */
export function crossEntropy(logits_BC: Tensor, target_BC: Tensor): Tensor {
  return tf.neg(tf.mean(tf.sum(tf.mul(tf.logSoftmax(logits_BC), target_BC), 1)));
}
