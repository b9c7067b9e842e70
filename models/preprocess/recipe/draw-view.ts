import type { AugmentConfig } from '../../../common/config/augment-config.ts';
import type { RandomStream } from '../../../common/random.ts';
import { type CropBox, drawCrop, type PictureSize } from '../crop-box.ts';
import type { ViewSpec } from './view-plan.ts';

export const JITTERS = ['brightness', 'contrast', 'saturation', 'hue'] as const;
export type Jitter = (typeof JITTERS)[number];

/** Everything that one view of one sample does. */
export interface ViewDraw {
  readonly spec: ViewSpec;
  /** Whole pixels. */
  readonly crop: CropBox;
  readonly flip: boolean;
  /** In the order of application: factors, for hue turns. Empty where jitter does not strike. */
  readonly jitter: readonly { readonly kind: Jitter; readonly amount: number }[];
  readonly grayscale: boolean;
  /** Pixels of the output. */
  readonly blurSigma: number | undefined;
  readonly solarize: boolean;
}

/**
 * Draws one view. The order of draws is fixed whatever is enabled, so switching one thing on leaves the others as they were; the
 * crop, whose number of draws varies, comes last.
 */
export function drawView(stream: RandomStream, augment: AugmentConfig, spec: ViewSpec, source: PictureSize): ViewDraw {
  const flip = stream.uniform() < augment.flip;
  const jitter = drawJitter(stream, augment);
  const grayscale = stream.uniform() < augment.grayscale;
  const blurs = stream.uniform() < spec.blurProbability;
  const sigma = stream.uniform(...(augment.blur?.sigma ?? [0, 0]));
  const solarize = stream.uniform() < spec.solarizeProbability;
  const crop = drawCrop(stream, { scale: spec.scale, ratio: augment.ratio }, source, true);
  return { spec, crop, flip, jitter, grayscale, blurSigma: blurs ? sigma : undefined, solarize };
}

/** torchvision.transforms.ColorJitter.get_params: a permutation, then a uniform factor each; a strength of 0 leaves its change out. */
function drawJitter(stream: RandomStream, augment: AugmentConfig): ViewDraw['jitter'] {
  const { jitter } = augment;
  const strikes = stream.uniform() < (jitter?.probability ?? 0);
  const order = [0, 1, 2, 3];
  for (let i = order.length - 1; i > 0; i--) {
    const j = stream.integer(i + 1);
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  const amounts = JITTERS.map((kind) => {
    const strength = jitter?.[kind] ?? 0;
    return kind === 'hue'
      ? stream.uniform(-strength, strength)
      : stream.uniform(Math.max(1 - strength, 0), 1 + strength);
  });
  if (!strikes || jitter === undefined) return [];
  return order
    .map((index) => ({ kind: JITTERS[index]!, amount: amounts[index]! }))
    .filter(({ kind }) => jitter[kind] > 0);
}
