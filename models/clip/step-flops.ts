import type { ModelConfig, TextConfig } from '../../common/config/run-config.ts';
import type { VisionConfig } from '../../common/config/vision-config.ts';
import { newBackbone } from '../vision/backbone.ts';
import { blocksFlops, product } from './block-cost.ts';

/** What one lane of a training step has to compute. */
export interface LaneShape {
  /** Pictures, and as many captions. */
  readonly samples: number;
  /** Tokens the text tower sees of each caption: the lane's longest, see `textBatch`. */
  readonly textTokens: number;
  /** Rows of the similarity matrix: the whole global batch. */
  readonly globalBatch: number;
  /** `train.patchDropout`. Default 0. */
  readonly patchDropout?: number | undefined;
}

/** Floating-point operations of matrix products, a multiply and an add counted as two. */
export interface StepFlops {
  readonly imageForward: number;
  readonly imageBackward: number;
  readonly textForward: number;
  readonly textBackward: number;
  readonly loss: number;
  readonly total: number;
}

/**
 * The products of one lane's step as covey computes them: the last block's output projection and MLP on the pooled rows only, attention
 * over visible pairs only, the embedding of tokens as the look-up it is. Backward is two products for each of forward, except that nobody
 * needs the pixels' gradient. What backward computes again (scores, blocks under recomputation) is not counted, so that the
 * share of the peak is that of the useful work (model FLOPs utilisation, Chowdhery et al. 2022, appendix B).
 */
export function laneFlops(
  model: ModelConfig,
  { samples, textTokens, globalBatch, patchDropout }: LaneShape,
): StepFlops {
  const { vision, text, embedDim } = model;
  const backbone = backboneFlops(vision, samples, patchDropout);
  const projection = product(samples, newBackbone(vision).featureWidth, embedDim);
  const textForward =
    samples * blocksFlops({ ...text, tokens: textTokens, causal: true }) + product(samples, text.width, embedDim);
  // Per side: logits for the log-sum-exps, logits again for the weights, and the weighted sum of the other side's rows.
  const loss = 2 * 3 * product(samples, embedDim, globalBatch);
  const parts = {
    imageForward: backbone.forward + projection,
    imageBackward: backbone.backward + 2 * projection,
    textForward,
    textBackward: 2 * textForward,
    loss,
  };
  return { ...parts, total: Object.values(parts).reduce((sum, flops) => sum + flops, 0) };
}

/** The products of the image tower up to its features, for so many pictures. */
export function backboneFlops(
  vision: VisionConfig,
  pictures: number,
  patchDropout = 0,
): { forward: number; backward: number } {
  const { forwardFlops, backwardFlops } = newBackbone(vision).cost(patchDropout);
  return { forward: pictures * forwardFlops, backward: pictures * backwardFlops };
}

/** Forward products of the text tower where all tokens see each other, and of guessing some of them. */
export function clozeFlops(
  text: TextConfig,
  { samples, tokens, guesses }: { readonly samples: number; readonly tokens: number; readonly guesses: number },
): number {
  const { width, vocabSize } = text;
  const tower = samples * blocksFlops({ ...text, tokens, causal: false });
  // Nothing is pooled: the last block ends for every token.
  const rest = samples * (tokens - 1) * product(1, width, width * (1 + 2 * text.mlpRatio));
  return tower + rest + product(guesses, width, width + vocabSize);
}
