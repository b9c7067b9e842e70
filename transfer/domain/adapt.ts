import { CoveyError } from '../../common/errors.ts';
import type { Engine } from '../../engine/index.ts';
import type { LabelledSample } from '../data/labelled-set.ts';
import type { PictureSample, PictureSource } from '../data/picture-source.ts';
import type { TransferNetwork } from '../network.ts';
import { type TuneHooks, type TuneProgress, type TuneResult, tune } from '../tune/tune.ts';
import type { DomainRecipe } from './domain-recipe.ts';
import { newAlignment } from './new-alignment.ts';
import { informationSelection } from './target-criterion.ts';

/** The pictures of a domain: to learn from, and others. */
export interface DomainPictures<S extends PictureSample> {
  readonly train: readonly S[];
  readonly validation: readonly S[];
  readonly pictures: PictureSource;
}

export interface AdaptModules {
  readonly engine: Engine;
  /** Of the backbone with a head of K classes. */
  readonly network: TransferNetwork;
  readonly classes: number;
  readonly source: DomainPictures<LabelledSample>;
  /** No label of these is known here. */
  readonly target: DomainPictures<PictureSample>;
  readonly signal?: AbortSignal | undefined;
}

/** Fewer pictures of a domain than this have no covariance. */
const BATCH_MIN = 2;

/**
 * Trains the network on the labels of the source while the features of target pictures are drawn to the source's, and leaves it with the weights that an
 * unlabelled criterion chose. With `none` nothing of the target is read. From `from` it goes on to the bits it would have reached.
 */
export async function adapt(
  recipe: DomainRecipe,
  modules: AdaptModules,
  hooks: TuneHooks = {},
  from?: TuneProgress,
): Promise<TuneResult> {
  const { engine, network, classes, source, target, signal } = modules;
  if (recipe.tune.batch < BATCH_MIN) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot adapt: a batch of ${recipe.tune.batch} has no spread; take two or more`,
    );
  }
  const tuned = { engine, network, classes, ...source, signal };
  const alignment = newAlignment(recipe, network.featureWidth);
  if (alignment === undefined) return tune(recipe.tune, tuned, hooks, from);
  try {
    const { train: samples, pictures } = target;
    const selection = informationSelection(target.validation, classes, { engine, network, pictures, signal });
    const aligned = { ...tuned, target: { alignment, samples, pictures }, selection };
    return await tune(recipe.tune, aligned, hooks, from);
  } finally {
    alignment.dispose();
  }
}
