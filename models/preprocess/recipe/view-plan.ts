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

/** All views of a multi-crop, or the `views` that were asked for without one. */
export function viewPlan(augment: AugmentConfig, imageSide: number, views: number): readonly ViewSpec[] {
  const count = augment.multiCrop === undefined ? views : GLOBAL_VIEWS + augment.multiCrop.views;
  return Array.from({ length: count }, (_, view) => viewSpec(augment, imageSide, view));
}

function ofView(probability: PerView, view: number): number {
  if (typeof probability === 'number') return probability;
  return probability[Math.min(view, probability.length - 1)]!;
}
