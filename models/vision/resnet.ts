import { CoveyError } from '../../common/errors.ts';
import {
  linear,
  type Precision,
  type Tensor,
  type Tensor1D,
  type Tensor2D,
  type Tensor4D,
  tf,
  type Variable,
} from '../../engine/index.ts';
import type { ParameterLookup } from '../clip/transformer.ts';
import { assignAll, makeVariables, type NamedVariable, readAll } from '../named-variables.ts';
import { batchNormLayer } from './batch-norm-layer.ts';
import { resNetFeatures } from './resnet-forward.ts';
import { type ResNetConfig, resNetBufferSpecs, resNetParameterSpecs } from './resnet-shapes.ts';

/** PyTorch's. */
const MOMENTUM = 0.1;

export interface ResNetOptions {
  /** Of the first weights. */
  readonly seed: number;
  /** Activations; weights, statistics, features and logits are float32 always. */
  readonly precision: Precision;
  /** `zeros` skips drawing weights that `setWeights` will replace at once. Default `random`. */
  readonly init?: 'random' | 'zeros';
}

let instances = 0;

/**
 * ResNet (He et al. 2016) to torchvision's numerics, "v1.5": the stride of a bottleneck is in its 3×3 convolution. Lives on the tfjs
 * backend that was active when it was made, owns its parameters and buffers, and belongs to one thread. Close with `dispose`.
 */
export class ResNet {
  readonly config: ResNetConfig;
  /** In torchvision's order: the one stable order of gradients, checkpoints and digests. */
  readonly parameters: readonly NamedVariable[];
  /** Running means and variances of the normalisations; every forward in training updates them. */
  readonly buffers: readonly NamedVariable[];
  readonly #byName: ReadonlyMap<string, Variable>;
  readonly #precision: Precision;

  constructor(config: ResNetConfig, { seed, precision, init = 'random' }: ResNetOptions) {
    this.config = config;
    this.#precision = precision;
    const scope = `resnet-${instances++}`;
    this.parameters = makeVariables(resNetParameterSpecs(config), { seed, init, trainable: true, scope });
    this.buffers = makeVariables(resNetBufferSpecs(config), { seed, init, trainable: false, scope });
    this.#byName = new Map([...this.parameters, ...this.buffers].map(({ name, variable }) => [name, variable]));
  }

  /**
   * What `fc` reads: the mean over all places of the last activations.
   *
   * @param x_BHWC normalised pixels; sides of any size from 32
   * @param options.training normalise by the batch's statistics and update the running ones
   * @returns float32 [B, 512] (depth 18 and 34) or [B, 2048]
   */
  features(x_BHWC: Tensor4D, { training }: { readonly training: boolean }): Tensor2D {
    if (x_BHWC.rank !== 4 || x_BHWC.shape[3] !== 3) {
      throw new CoveyError(
        'INVALID_ARGUMENT',
        `Cannot encode images: [batch, height, width, 3] is needed: got [${x_BHWC.shape}]`,
        {
          fields: { shape: x_BHWC.shape },
        },
      );
    }
    const normalise = batchNormLayer(this.#parameter, training ? this.#running : undefined);
    return resNetFeatures([x_BHWC], this.config, {
      parameters: [this.#parameter],
      normalise,
      precision: this.#precision,
    })[0]!;
  }

  /** Class scores, float32 [B, classes]. @throws CoveyError INVALID_ARGUMENT where the model was made without `classes` */
  logits(x_BHWC: Tensor4D, options: { readonly training: boolean }): Tensor2D {
    if (this.config.classes === undefined) {
      throw new CoveyError('INVALID_ARGUMENT', 'Cannot classify: this ResNet was made without `classes`');
    }
    return tf.tidy(
      () =>
        linear(
          this.features(x_BHWC, options),
          this.#parameter<Tensor2D>('fc.weight'),
          this.#parameter<Tensor1D>('fc.bias'),
        ) as Tensor2D,
    );
  }

  /** Replaces every parameter and buffer. @throws CoveyError INVALID_ARGUMENT naming each that is missing, superfluous or of another size */
  setWeights(source: ReadonlyMap<string, Float32Array>): void {
    assignAll([...this.parameters, ...this.buffers], source);
  }

  /** Host copies of parameters and buffers by torchvision's keys. */
  readWeights(): Map<string, Float32Array> {
    return readAll([...this.parameters, ...this.buffers]);
  }

  dispose(): void {
    for (const { variable } of [...this.parameters, ...this.buffers]) variable.dispose();
  }

  /** Alone in its process, the model moves its running statistics with every forward. */
  readonly #running = (name: string) => ({
    mean: this.#parameter<Variable>(`${name}.running_mean`),
    variance: this.#parameter<Variable>(`${name}.running_var`),
    momentum: MOMENTUM,
  });

  readonly #parameter: ParameterLookup = <T extends Tensor>(name: string) => this.#byName.get(name) as Tensor as T;
}
