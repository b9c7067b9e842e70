import { CoveyError } from '../../common/errors.ts';
import {
  type BatchNormOptions,
  batchNorm,
  conv2d,
  globalAveragePool,
  linear,
  maxPool2d,
  type Precision,
  type Tensor,
  type Tensor1D,
  type Tensor2D,
  type Tensor4D,
  tf,
  toCompute,
  type Variable,
} from '../../engine/index.ts';
import { assignAll, makeVariables, type NamedVariable, readAll } from '../named-variables.ts';
import {
  type BlockShape,
  hasDownsample,
  type ResNetConfig,
  resNetBlocks,
  resNetBufferSpecs,
  resNetParameterSpecs,
} from './resnet-shapes.ts';

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
  readonly #blocks: readonly BlockShape[];
  readonly #byName: ReadonlyMap<string, Variable>;
  readonly #precision: Precision;

  constructor(config: ResNetConfig, { seed, precision, init = 'random' }: ResNetOptions) {
    this.config = config;
    this.#precision = precision;
    this.#blocks = resNetBlocks(config.depth);
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
    return tf.tidy(() => {
      let x = tf.tidy(() => {
        const stem = this.#conv(toCompute(x_BHWC, this.#precision), 'conv1', 2, 3);
        return maxPool2d(this.#norm(stem, 'bn1', { training, activation: 'relu' }), { size: 3, stride: 2, padding: 1 });
      });
      for (const block of this.#blocks) {
        const input = x;
        x = tf.tidy(() => this.#block(input, block, training));
        // Where nothing is recorded for a backward, two blocks' activations are all that is alive.
        input.dispose();
      }
      return globalAveragePool(x);
    });
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

  #block(x: Tensor4D, block: BlockShape, training: boolean): Tensor4D {
    const { name, stride, kind } = block;
    const shortcut = hasDownsample(block)
      ? this.#norm(this.#conv(x, `${name}.downsample.0`, stride, 0), `${name}.downsample.1`, { training })
      : x;
    const relu = { training, activation: 'relu' } as const;
    const last = { ...relu, residual: shortcut };
    if (kind === 'basic') {
      const h = this.#norm(this.#conv(x, `${name}.conv1`, stride, 1), `${name}.bn1`, relu);
      return this.#norm(this.#conv(h, `${name}.conv2`, 1, 1), `${name}.bn2`, last);
    }
    const narrow = this.#norm(this.#conv(x, `${name}.conv1`, 1, 0), `${name}.bn1`, relu);
    const h = this.#norm(this.#conv(narrow, `${name}.conv2`, stride, 1), `${name}.bn2`, relu);
    return this.#norm(this.#conv(h, `${name}.conv3`, 1, 0), `${name}.bn3`, last);
  }

  #conv(x: Tensor4D, name: string, stride: number, padding: number): Tensor4D {
    return conv2d(x, this.#parameter(`${name}.weight`), { stride, padding });
  }

  #norm(x: Tensor4D, name: string, options: BatchNormOptions): Tensor4D {
    const state = {
      weight: this.#parameter<Tensor1D>(`${name}.weight`),
      bias: this.#parameter<Tensor1D>(`${name}.bias`),
      runningMean: this.#parameter<Variable>(`${name}.running_mean`),
      runningVariance: this.#parameter<Variable>(`${name}.running_var`),
    };
    return batchNorm(x, state, options);
  }

  #parameter<T extends Tensor>(name: string): T {
    return this.#byName.get(name) as Tensor as T;
  }
}
