import type { MocoOptions } from '../../common/config/moco-config.ts';
import type { Engine, Tensor, Tensor4D } from '../../engine/index.ts';
import { tf } from '../../engine/index.ts';
import type { MomentumModel } from '../../models/vision/momentum-model.ts';

/** What both versions of MoCo have in common. */
export interface MocoObjectiveOptions extends Pick<MocoOptions, 'momentum' | 'momentumSchedule' | 'temperature'> {
  /** Of the whole run. */
  readonly steps: number;
}

export interface MocoModules {
  readonly engine: Engine;
  readonly model: MomentumModel;
}

/** Share of queries nearest to their own key; mean similarity with it. */
export const MOCO_METRICS = ['top1_accuracy', 'positive_similarity'];

/**
 * Momentum with which the key encoder moves before the keys of a step are encoded. With `cosine` (Chen et al. 2021, §4.3; `main_moco.py` of
 * facebookresearch/moco-v3) it rises to 1: 1 − (1 − m)·(1 + cos(π·step/steps))/2.
 */
export function keyMomentum(step: number, { momentum, momentumSchedule, steps }: MocoObjectiveOptions): number {
  if (momentumSchedule === 'constant') return momentum;
  return 1 - ((1 - momentum) * (1 + Math.cos((Math.PI * step) / steps))) / 2;
}

/** The pictures of one view, [samples, side, side, 3]. */
export function viewOf(pixels_BHWC: Tensor, view: number, samples: number): Tensor {
  return tf.slice(pixels_BHWC as Tensor4D, [view * samples, 0, 0, 0], [samples, -1, -1, -1]);
}
