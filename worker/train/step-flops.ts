import {
  type ClozeConfig,
  clozeOf,
  maeOf,
  objectiveParts,
  type SingleObjective,
} from '../../common/config/loss-config.ts';
import type { ModelConfig, RunConfig } from '../../common/config/run-config.ts';
import { backboneFlops, clozeFlops, laneFlops, type StepFlops } from '../../models/clip/step-flops.ts';
import { textBatch } from '../../models/clip/text-tower.ts';
import { maeFlops } from '../../models/vision/mae-cost.ts';
import { encodedPictures } from '../objectives/objective-inputs.ts';

/**
 * The matrix products of these lanes' step, of all parts of what is learnt. Where there are no captions: of the backbone alone, beside which
 * head and loss are little.
 */
export function stepFlops(
  config: Pick<RunConfig, 'objective' | 'loss' | 'train'>,
  model: ModelConfig,
  lanes: readonly { readonly tokens: Int32Array }[],
): StepFlops {
  const { globalBatch, lanes: laneCount, patchDropout } = config.train;
  const ofPart = (objective: SingleObjective): StepFlops => {
    if (objective === 'clip' || objective === 'siglip') return lanesFlops(model, globalBatch, lanes, patchDropout);
    if (objective === 'cloze') return lanesClozeFlops(model, clozeOf(config.loss), lanes);
    const pictures = globalBatch / laneCount;
    if (objective === 'mae') return ofPictures(maeFlops(model.vision, maeOf(config.loss)), lanes.length * pictures);
    const { forward, backward } = backboneFlops(model.vision, pictures, patchDropout);
    const { learnt, keys } = encodedPictures(objective);
    const imageForward = lanes.length * (learnt * forward + keys * backboneFlops(model.vision, pictures).forward);
    const imageBackward = lanes.length * learnt * backward;
    return { ...NOTHING, imageForward, imageBackward, total: imageForward + imageBackward };
  };
  return objectiveParts(config)
    .map(({ objective }) => ofPart(objective))
    .reduce(sum, NOTHING);
}

function ofPictures(one: { readonly forward: number; readonly backward: number }, pictures: number): StepFlops {
  const [imageForward, imageBackward] = [pictures * one.forward, pictures * one.backward];
  return { ...NOTHING, imageForward, imageBackward, total: imageForward + imageBackward };
}

function lanesClozeFlops(
  { text }: ModelConfig,
  { maskRatio }: ClozeConfig,
  lanes: readonly { readonly tokens: Int32Array }[],
): StepFlops {
  const textForward = lanes.reduce((flops, { tokens }) => {
    const samples = tokens.length / text.contextLength;
    const batch = textBatch(tokens, samples, text);
    const words = batch.ends.reduce((total, end) => total + Math.max(0, end - 1), 0);
    return flops + clozeFlops(text, { samples, tokens: batch.tokens, guesses: Math.round(maskRatio * words) });
  }, 0);
  return { ...NOTHING, textForward, textBackward: 2 * textForward, total: 3 * textForward };
}

/** The matrix products of a step over these lanes, after the captions as they are: see `laneFlops`. */
export function lanesFlops(
  model: ModelConfig,
  globalBatch: number,
  lanes: readonly { readonly tokens: Int32Array }[],
  patchDropout = 0,
): StepFlops {
  const { contextLength } = model.text;
  return lanes
    .map(({ tokens }) => {
      const samples = tokens.length / contextLength;
      return laneFlops(model, {
        samples,
        globalBatch,
        patchDropout,
        textTokens: textBatch(tokens, samples, model.text).tokens,
      });
    })
    .reduce(sum, NOTHING);
}

const NOTHING: StepFlops = {
  imageForward: 0,
  imageBackward: 0,
  textForward: 0,
  textBackward: 0,
  loss: 0,
  total: 0,
};

function sum(a: StepFlops, b: StepFlops): StepFlops {
  return {
    imageForward: a.imageForward + b.imageForward,
    imageBackward: a.imageBackward + b.imageBackward,
    textForward: a.textForward + b.textForward,
    textBackward: a.textBackward + b.textBackward,
    loss: a.loss + b.loss,
    total: a.total + b.total,
  };
}
