import type { VisionConfig } from '../../common/config/run-config.ts';
import { CoveyError } from '../../common/errors.ts';
import {
  batchNorm,
  l2Normalize,
  linear,
  moduleScope,
  relu,
  type Tensor,
  type Tensor1D,
  type Tensor2D,
  tf,
  type Variable,
} from '../../engine/index.ts';
import { checkedPixels, imageFeatures, type TowerOptions } from '../clip/image-tower.ts';
import { type RecomputeOption, recomputedBlocks } from '../clip/transformer.ts';
import { makeVariables, type NamedVariable } from '../named-variables.ts';
import { type HeadConfig, viewBufferSpecs, viewParameterSpecs } from './view-shapes.ts';

export interface ViewModelOptions {
  /** Of the first weights. */
  readonly seed: number;
  /** Activations of the backbone; weights, features and the head are float32 always. */
  readonly precision: 'fp32' | 'bf16';
  readonly quickGelu: boolean;
  /** See ClipModelOptions. Default `none`. */
  readonly recompute?: RecomputeOption;
  /** Whether the weights have gradients. Default true. */
  readonly trainable?: boolean;
}

let instances = 0;

/**
 * A ViT backbone f with a head that is thrown away afterwards: SimCLR's projection g (Chen et al. 2020, §2.1: z = W₂·relu(W₁·h)) or a linear
 * classifier. h, what transfer starts from, is the class token after `ln_post`, under open_clip's keys. Lives on the tfjs backend that was
 * active when it was made, owns its parameters, belongs to one thread. Close with `dispose`.
 */
export class ViewModel {
  readonly vision: VisionConfig;
  readonly head: HeadConfig;
  /** In the one stable order of gradients, checkpoints and digests: the backbone, then the head. */
  readonly parameters: readonly NamedVariable[];
  /** Running statistics that the head's normalisation must be given. Nothing reads them: a head in training uses its batch's. */
  readonly #buffers: readonly NamedVariable[];
  readonly #byName: ReadonlyMap<string, Variable>;
  readonly #tower: TowerOptions;

  constructor(vision: VisionConfig, head: HeadConfig, options: ViewModelOptions) {
    const { seed, precision, quickGelu, recompute = 'none', trainable = true } = options;
    this.vision = vision;
    this.head = head;
    this.#tower = { precision, quickGelu, recomputedBlocks: recomputedBlocks(recompute) };
    const scope = `view-model-${instances++}`;
    const make = { seed, init: 'random', scope } as const;
    this.parameters = makeVariables(viewParameterSpecs(vision, head), { ...make, trainable });
    this.#buffers = makeVariables(viewBufferSpecs(head), { ...make, trainable: false });
    this.#byName = new Map([...this.parameters, ...this.#buffers].map(({ name, variable }) => [name, variable]));
  }

  /** Width of z, or the number of classes. */
  get outputWidth(): number {
    return this.head.kind === 'projection' ? this.head.width : this.head.classes;
  }

  /** h: float32 [B, vision.width] of normalised pixels [B,H,W,3]. */
  features(x_BHWC: Tensor): Tensor2D {
    const pixels = checkedPixels(x_BHWC, this.vision);
    return moduleScope('image tower', () =>
      tf.tidy(() => imageFeatures(pixels, this.#parameter, this.vision, this.#tower)),
    );
  }

  /**
   * z = g(h), unit length, float32 [B, head.width]. Where the head normalises, it does so over the B rows given: over one lane's
   * views ("ghost" batch norm, Hoffer et al. 2017), so that the result does not depend on who holds which lanes.
   */
  project(x_BHWC: Tensor): Tensor2D {
    const { head } = this;
    if (head.kind !== 'projection') throw wrongHead('project', head);
    return tf.tidy(() => {
      const h = this.features(x_BHWC);
      return moduleScope('projection head', () => {
        const bias = head.batchNorm ? null : this.#parameter<Tensor1D>('head.0.bias');
        const hidden = linear(h, this.#parameter<Tensor2D>('head.0.weight'), bias);
        const activated = head.batchNorm ? this.#normalise(hidden) : relu(hidden);
        const z = linear(
          activated,
          this.#parameter<Tensor2D>('head.3.weight'),
          this.#parameter<Tensor1D>('head.3.bias'),
        );
        return l2Normalize(z) as Tensor2D;
      });
    });
  }

  /** Class scores, float32 [B, head.classes]. */
  classify(x_BHWC: Tensor): Tensor2D {
    if (this.head.kind !== 'classifier') throw wrongHead('classify', this.head);
    return tf.tidy(() => {
      const h = this.features(x_BHWC);
      return moduleScope(
        'classifier',
        () => linear(h, this.#parameter('head.weight'), this.#parameter<Tensor1D>('head.bias')) as Tensor2D,
      );
    });
  }

  dispose(): void {
    for (const { variable } of [...this.parameters, ...this.#buffers]) variable.dispose();
  }

  #normalise(hidden: Tensor): Tensor {
    const state = {
      weight: this.#parameter<Tensor1D>('head.1.weight'),
      bias: this.#parameter<Tensor1D>('head.1.bias'),
      runningMean: this.#parameter<Variable>('head.1.running_mean'),
      runningVariance: this.#parameter<Variable>('head.1.running_var'),
    };
    return batchNorm(hidden, state, { training: true, activation: 'relu' });
  }

  readonly #parameter = <T extends Tensor>(name: string): T => this.#byName.get(name) as Tensor as T;
}

function wrongHead(verb: string, head: HeadConfig): CoveyError {
  return new CoveyError('INVALID_ARGUMENT', `Cannot ${verb}: the model was made with another head: ${head.kind}`, {
    fields: { head: head.kind },
  });
}
