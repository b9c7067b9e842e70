import type { Tensor, Tensor2D } from '../../engine/index.ts';
import type { ClipModel } from '../../models/clip/clip-model.ts';
import type { LanesTogether } from '../../models/vision/lanes-together.ts';
import type { EncoderInput, GlobalBatch, Objective } from './objective.ts';

/** What the objectives over pairs of a picture and a caption share. */

export interface GlobalEmbeddings {
  /** All lanes' rows in lane order, L2-normalised, float32. */
  readonly image_ND: Tensor2D;
  readonly text_ND: Tensor2D;
}

/** The two towers' unit-length embeddings, both gathered: what every image-text objective starts from. */
export function towerOutputs({ config: { embedDim } }: ClipModel): Objective['outputs'] {
  const rows = { perSample: 1, width: embedDim, gathered: true };
  return [
    { ...rows, name: 'image', partner: 'text' },
    { ...rows, name: 'text' },
  ];
}

export function encodePairs(
  model: ClipModel,
  { pixels_BHWC, tokens, samples, dropSeeds: seeds }: EncoderInput,
): Tensor[] {
  return [model.encodeImage(pixels_BHWC, { training: true, seeds }), model.encodeText(tokens, samples)];
}

/** The same of lanes side by side, whose batch norms see all lanes. */
export function encodePairsTogether(
  model: ClipModel,
  inputs: readonly EncoderInput[],
  together: LanesTogether,
): Tensor[][] {
  return model.encodeTogether(inputs, together);
}

export function embeddingsOf({ gathered: [image_ND, text_ND] }: GlobalBatch): GlobalEmbeddings {
  return { image_ND: image_ND!, text_ND: text_ND! };
}
