import type { AugmentConfig, PerView } from '../../../common/config/augment-config.ts';

/** Full-size views of a multi-crop (SwAV, DINO). */
export const GLOBAL_VIEWS = 2;

/** What one view of every sample is drawn from. */
export interface ViewSpec {
  readonly view: number;
  /** Of the output, pixels. */
  readonly side: number;
  readonly scale: readonly [number, number];
  readonly blurProbability: number;
  readonly solarizeProbability: number;
}

/** View `view` of a sample: without multi-crop all are full-size; with it, those after the first GLOBAL_VIEWS are small. */
export function viewSpec(augment: AugmentConfig, imageSide: number, view: number): ViewSpec {
  const { multiCrop, blur, solarize } = augment;
  const small = multiCrop !== undefined && view >= GLOBAL_VIEWS;
  return {
    view,
    side: small ? multiCrop.side : imageSide,
    scale: small ? multiCrop.scale : augment.scale,
    blurProbability: ofView(blur?.probability ?? 0, view),
    solarizeProbability: ofView(solarize?.probability ?? 0, view),
  };
}

/**
 * How many views a config tells apart: all of a multi-crop, or the longest list of probabilities. undefined where any number
 * of views are alike.
 */
export function distinctViews({ multiCrop, blur, solarize }: AugmentConfig): number | undefined {
  if (multiCrop !== undefined) return GLOBAL_VIEWS + multiCrop.views;
  const lists = [blur?.probability, solarize?.probability].filter((one) => Array.isArray(one));
  return lists.length === 0 ? undefined : Math.max(...lists.map((list) => list.length));
}

function ofView(probability: PerView, view: number): number {
  if (typeof probability === 'number') return probability;
  return probability[Math.min(view, probability.length - 1)]!;
}
