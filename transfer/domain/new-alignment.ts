import { assert } from '../../common/errors.ts';
import { type Tensor, type Tensor2D, unrecorded } from '../../engine/index.ts';
import type { Alignment } from '../tune/alignment.ts';
import { coralLoss } from './coral.ts';
import { Discriminator } from './discriminator.ts';
import type { DomainRecipe } from './domain-recipe.ts';
import { mmdLoss } from './mmd.ts';

/** The loss between source and target of a recipe; undefined for `none`. The caller disposes it. */
export function newAlignment(recipe: DomainRecipe, featureWidth: number): Alignment | undefined {
  const { method, weight, reversal, discriminatorWidth: width } = recipe;
  const { seed } = recipe.tune;
  switch (method) {
    case 'none':
      return undefined;
    case 'dann':
      return new Discriminator({ featureWidth, width, weight, reversal, seed });
    case 'coral':
      return new DistanceAlignment(weight, coralLoss);
    case 'mmd':
      return new DistanceAlignment(weight, (source, target) => mmdLoss(source, target));
  }
}

/** A distance of two sets of features that has no parameters. */
class DistanceAlignment implements Alignment {
  readonly weight: number;
  readonly parameters = [];
  readonly buffers = [];
  readonly #distance: (source_BF: Tensor2D, target_BF: Tensor2D) => Tensor;
  #last: number | undefined;

  constructor(weight: number, distance: (source_BF: Tensor2D, target_BF: Tensor2D) => Tensor) {
    this.weight = weight;
    this.#distance = distance;
  }

  loss(source_BF: Tensor2D, target_BF: Tensor2D): Tensor {
    const loss = this.#distance(source_BF, target_BF);
    this.#last = unrecorded(() => loss.dataSync<'float32'>()[0]!);
    return loss;
  }

  finishStep(): Readonly<Record<string, number>> {
    assert(this.#last !== undefined, 'a step is finished after its loss');
    return { alignmentLoss: this.#last };
  }

  dispose(): void {}
}
