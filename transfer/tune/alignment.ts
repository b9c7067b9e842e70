import type { Tensor, Tensor2D } from '../../engine/index.ts';
import type { NamedVariable } from '../../models/named-variables.ts';
import type { PictureSample, PictureSource } from '../data/picture-source.ts';

/** Where a step is in its training: what schedules are functions of. */
export interface TuneMoment {
  readonly step: number;
  readonly steps: number;
}

/**
 * A loss between the features of the labelled pictures of a step and those of others, without labels, that is added to the cross-entropy. Its
 * parameters and buffers are named `domain.…`, have the whole learning rate and are kept with a training's progress. Shapes: B pictures, F features.
 */
export interface Alignment {
  /** Factor of the loss. */
  readonly weight: number;
  readonly parameters: readonly NamedVariable[];
  /** What no gradient changes, and `finishStep` does. */
  readonly buffers: readonly NamedVariable[];
  /** A scalar, in the current scope. Called while a forward pass is recorded. */
  loss(source_BF: Tensor2D, target_BF: Tensor2D, moment: TuneMoment): Tensor;
  /** After the update of the step whose loss was made last. Figures of that step, by name. */
  finishStep(): Readonly<Record<string, number>>;
  dispose(): void;
}

/** The unlabelled side of a training. Nothing here knows a label. */
export interface AlignedTarget {
  readonly alignment: Alignment;
  readonly samples: readonly PictureSample[];
  readonly pictures: PictureSource;
}
