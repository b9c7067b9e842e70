import type { ModelConfig } from '../../common/config/run-config.ts';
import { parameterSpecs } from '../../models/clip/parameter-shapes.ts';
import { presets } from '../../models/presets.ts';
import { featureWidth, hasDownsample, resNetBlocks, resNetParameterSpecs } from '../../models/vision/resnet-shapes.ts';
import { requireClipVit } from '../../models/vision/vit-layout.ts';
import { blockShapes } from './op-specs.ts';
import type { StepParameter, StepSpec } from './protocol.ts';

/** One training step to be compared. */
export interface StepCase {
  readonly id: StepSpec['model'];
  readonly label: string;
  readonly spec: StepSpec;
  /** Of one step, forward and backward; see `transformerFlops`. */
  readonly flops: number;
  /** The share of the GEMM peak is part of what the issue aims at. */
  readonly transformer: boolean;
}

const OPTIMIZER = { lr: 1e-4, beta1: 0.9, beta2: 0.98, eps: 1e-6, weightDecay: 0.1 };

/** Keeps the scale of what a weight multiplies; norms start at one, biases near zero. */
function started(name: string, shape: readonly number[]): StepParameter {
  if (shape.length === 1 && name.endsWith('weight')) return { name, shape, start: { constant: 1 } };
  if (shape.length === 1 || name.includes('embedding') || name === 'position') {
    return { name, shape, start: { bound: 0.02 } };
  }
  return { name, shape, start: { bound: shape.slice(1).reduce((product, side) => product * side, 1) ** -0.5 } };
}

export interface TransformerFlops {
  readonly batch: number;
  readonly tokens: number;
  readonly width: number;
  readonly layers: number;
  readonly causal: boolean;
  /** The last block works on one token of each sequence after its attention. */
  readonly pooled: boolean;
  /** Inputs of the first product; its input needs no gradient. 0: there is none (an embedding). */
  readonly patch: number;
  /** Outputs of the last product. */
  readonly outputs: number;
}

/**
 * Multiply-adds ×2 of the products that cannot be avoided: forward once, backward twice (once for the patches' product). Attention
 * recomputed in backward, softmax, norms and the optimiser are not counted; under the causal mask half of attention is.
 */
export function transformerFlops(options: TransformerFlops): number {
  const { batch, tokens, width, layers, causal, pooled, patch, outputs } = options;
  const rows = batch * tokens;
  const pairs = causal ? (tokens * (tokens + 1)) / 2 : tokens ** 2;
  const intoAttention = 2 * rows * 3 * width ** 2 + 4 * batch * pairs * width;
  const afterAttention = 2 * 9 * width ** 2;
  const lastRows = pooled ? batch : rows;
  const blocks = layers * intoAttention + ((layers - 1) * rows + lastRows) * afterAttention;
  const patches = 2 * batch * (tokens - 1) * patch * width;
  return 3 * (blocks + 2 * batch * width * outputs) + 2 * patches;
}

/** The step of docs/decisions' engine measurements: a small ViT that classifies. */
export function transformerCase(batch = 64, width = 256, layers = 6, patches = 64): StepCase {
  const sizes = { width, layers, heads: width / 64, patches, patch: 48, classes: 64 };
  const shapes: readonly (readonly [string, ...number[]])[] = [
    ['patch.weight', width, sizes.patch],
    ['patch.bias', width],
    ['token.embedding', width],
    ['position', patches + 1, width],
    ...Array.from({ length: layers }, (_, i) =>
      blockShapes(width).map(([name, ...shape]) => [`blocks.${i}.${name}`, ...shape] as const),
    ).flat(),
    ['norm.weight', width],
    ['norm.bias', width],
    ['head.weight', sizes.classes, width],
    ['head.bias', sizes.classes],
  ];
  const parameters = shapes.map(([name, ...shape]) => started(name, shape));
  return {
    id: 'transformer',
    label: `transformer D=${width} L=${layers} T=${patches + 1} B=${batch}`,
    spec: { model: 'transformer', batch, sizes, parameters, optimizer: OPTIMIZER },
    flops: transformerFlops({
      batch,
      tokens: patches + 1,
      width,
      layers,
      causal: false,
      pooled: false,
      patch: sizes.patch,
      outputs: sizes.classes,
    }),
    transformer: true,
  };
}

/** The loss of the towers: softmax cross entropy of scaled cosines against one fixed embedding per item. */
const towerLoss = (batch: number, embedDim: number) => batch * embedDim;

/** CLIP's image tower alone, at full size ViT-B/32. */
export function imageCase(batch = 32, model: ModelConfig = presets['ViT-B-32']!, name = 'ViT-B/32'): StepCase {
  const { width, layers, headWidth, imageSize, patchSize } = requireClipVit(model.vision, 'bench the image tower');
  const tokens = (imageSize / patchSize) ** 2 + 1;
  const parameters = towerParameters(model, (parameter) => parameter.startsWith('visual.'));
  return {
    id: 'image',
    label: `${name} image tower B=${batch}`,
    spec: {
      model: 'image',
      batch,
      sizes: { width, layers, headWidth, imageSize, patchSize, embedDim: model.embedDim },
      parameters,
      optimizer: OPTIMIZER,
    },
    flops:
      transformerFlops({
        batch,
        tokens,
        width,
        layers,
        causal: false,
        pooled: true,
        patch: 3 * patchSize ** 2,
        outputs: model.embedDim,
      }) +
      4 * batch * towerLoss(batch, model.embedDim),
    transformer: true,
  };
}

/** CLIP's text tower alone, every caption of full length. */
export function textCase(batch = 64, model: ModelConfig = presets['ViT-B-32']!, name = 'CLIP B/32'): StepCase {
  const { width, layers, heads, contextLength, vocabSize } = model.text;
  const parameters = towerParameters(model, (key) => !key.startsWith('visual.') && key !== 'logit_scale');
  return {
    id: 'text',
    label: `${name} text tower T=${contextLength} B=${batch}`,
    spec: {
      model: 'text',
      batch,
      sizes: { width, layers, heads, contextLength, vocabSize, embedDim: model.embedDim },
      parameters,
      optimizer: OPTIMIZER,
    },
    flops:
      transformerFlops({
        batch,
        tokens: contextLength,
        width,
        layers,
        causal: true,
        pooled: true,
        patch: 0,
        outputs: model.embedDim,
      }) +
      4 * batch * towerLoss(batch, model.embedDim),
    transformer: true,
  };
}

function towerParameters(model: ModelConfig, wanted: (name: string) => boolean): StepParameter[] {
  return parameterSpecs(model, 0)
    .filter(({ name }) => wanted(name))
    .map(({ name, shape }) => started(name, shape));
}

/** ResNet as torchvision has it, classifying into 1,000. */
export function resnetCase(batch = 16, imageSize = 224, depth: 50 | 101 | 152 = 50): StepCase {
  const config = { depth, classes: 1000 };
  const parameters = resNetParameterSpecs(config).map(({ name, shape }) => started(name, shape));
  return {
    id: 'resnet',
    label: `ResNet-${depth} ${imageSize}² B=${batch}`,
    spec: {
      model: 'resnet',
      batch,
      sizes: { ...config, imageSize },
      parameters,
      optimizer: OPTIMIZER,
    },
    flops: batch * resnetFlops(depth, imageSize, config.classes),
    transformer: false,
  };
}

/** Of one image, forward and backward: the convolutions and the classifier. */
function resnetFlops(depth: 50 | 101 | 152, imageSize: number, classes: number): number {
  const conv = (side: number, size: number, inputs: number, outputs: number) =>
    2 * side ** 2 * size ** 2 * inputs * outputs;
  let side = imageSize / 2;
  const first = conv(side, 7, 3, 64);
  side /= 2;
  let flops = 0;
  for (const block of resNetBlocks(depth)) {
    flops += conv(side, 1, block.inputs, block.width);
    side /= block.stride;
    flops += conv(side, 3, block.width, block.width) + conv(side, 1, block.width, block.outputs);
    if (hasDownsample(block)) flops += conv(side, 1, block.inputs, block.outputs);
  }
  return 3 * (flops + 2 * featureWidth(depth) * classes) + 2 * first;
}

/** The steps of the benchmark. `quick`: a quarter of each batch. */
export function stepCases(quick: boolean): StepCase[] {
  const share = quick ? 4 : 1;
  return [transformerCase(64 / share), imageCase(32 / share), resnetCase(16 / share), textCase(64 / share)];
}
