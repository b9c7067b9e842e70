import type { ModelConfig, RunConfig } from '../../common/config/run-config.ts';
import { backboneFlops, laneFlops, type StepFlops } from '../../models/clip/step-flops.ts';
import { textBatch } from '../../models/clip/text-tower.ts';
import { OBJECTIVE_INPUTS } from '../objectives/objective-inputs.ts';

/** The matrix products of these lanes' step. Where there are no captions: of the backbone alone, beside which head and loss are little. */
export function stepFlops(
  { objective, train }: Pick<RunConfig, 'objective' | 'train'>,
  model: ModelConfig,
  lanes: readonly { readonly tokens: Int32Array }[],
): StepFlops {
  const { views, captions } = OBJECTIVE_INPUTS[objective];
  if (captions) return lanesFlops(model, train.globalBatch, lanes, train.patchDropout);
  const pictures = train.globalBatch / train.lanes;
  const { forward, backward } = backboneFlops(model.vision, pictures, train.patchDropout);
  const { learnt, keys } = encodedViews(objective, views);
  const imageForward = lanes.length * (learnt * forward + keys * backboneFlops(model.vision, pictures).forward);
  const imageBackward = lanes.length * learnt * backward;
  return { ...NOTHING, imageForward, imageBackward, total: imageForward + imageBackward };
}

/** How many views of a sample are encoded for a backward, and how many by a momentum encoder, which has none. */
function encodedViews(objective: RunConfig['objective'], views: number): { learnt: number; keys: number } {
  if (objective === 'moco-v2') return { learnt: 1, keys: 1 };
  return { learnt: views, keys: objective === 'moco-v3' ? views : 0 };
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
