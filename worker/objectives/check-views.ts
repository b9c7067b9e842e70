import { objectiveParts } from '../../common/config/loss-config.ts';
import type { RunConfig } from '../../common/config/run-config.ts';
import { OBJECTIVE_INPUTS } from './objective-inputs.ts';

/** A crop of less of the picture than this is what the published methods have at their strongest (MAE, MoCo v2: 0.2; SimCLR: 0.08). */
const WEAK_CROP = 0.5;

/** Why the views of a two-view objective are nearly the same picture, so that telling them from others teaches little; or undefined. */
export function weakViews(config: Pick<RunConfig, 'objective' | 'loss' | 'data'>): string | undefined {
  const { objective, data } = config;
  const { recipe, scale, colorJitter, jitter } = data.augment;
  if (
    objectiveParts(config).every((part) => OBJECTIVE_INPUTS[part.objective].views < 2) ||
    scale[0] < WEAK_CROP ||
    colorJitter > 0 ||
    jitter !== undefined
  )
    return undefined;
  return `objective ${objective} compares two views of a picture, and data.augment leaves them nearly alike (${recipe === undefined ? 'no recipe' : `recipe ${recipe}`}, crops of ${scale[0]} to ${scale[1]} of the area, no colour jitter); name its recipe, e.g. data.augment.recipe: simclr`;
}
