import type { VisionConfig } from '../../common/config/vision-config.ts';
import { CoveyError } from '../../common/errors.ts';
import {
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
import { type ParameterLookup, type RecomputeOption, recomputedBlocks } from '../clip/transformer.ts';
import { makeVariables, type NamedVariable } from '../named-variables.ts';
import { type Backbone, checkedPixels, newBackbone, type TowerContext } from './backbone.ts';
import { BatchStatistics } from './batch-statistics.ts';
import { mlp } from './mlp-head.ts';
import {
  type HeadConfig,
  headWidth,
  type MocoHead,
  mocoParts,
  viewBufferSpecs,
  viewParameterSpecs,
} from './view-shapes.ts';

export interface ViewModelOptions {
  /** Of the first weights. */
  readonly seed: number;
  /** Activations of the backbone; weights, features and the head are float32 always. */
  readonly precision: 'fp32' | 'bf16';
  readonly quickGelu: boolean;
  /** See ClipModelOptions. Default `none`. */
  readonly recompute?: RecomputeOption;
  /** See ClipModelOptions. Default 0. */
  readonly patchDropout?: number;
  /** Whether the weights have gradients. Default true. */
  readonly trainable?: boolean;
}

/** How batch norms and patch dropout work in a forward. */
export interface ForwardOptions {
  /**
   * By the statistics of the rows given, which `statistics` then holds: those of one lane ("ghost" batch norm, Hoffer et al. 2017), all its views
   * together. Otherwise by the running ones.
   */
  readonly training: boolean;
  /** See EncodeImageOptions. */
  readonly seeds?: Uint32Array | undefined;
}

let instances = 0;

/**
 * A backbone f with a head that is thrown away afterwards: SimCLR's projection g (Chen et al. 2020, §2.1: z = W₂·relu(W₁·h)) or a linear
 * classifier. h, what transfer starts from, is the backbone's feature, its parameters under open_clip's keys. Lives on the tfjs backend that was
 * active when it was made, owns its parameters and buffers, belongs to one thread. Close with `dispose`.
 */
export class ViewModel {
  readonly vision: VisionConfig;
  readonly head: HeadConfig;
  readonly backbone: Backbone;
  /** In the one stable order of gradients, checkpoints and digests: the backbone, then the head. */
  readonly parameters: readonly NamedVariable[];
  /** What no gradient changes: running statistics, fixed positions. */
  readonly buffers: readonly NamedVariable[];
  /** Of the batch norms; absent where there are none. */
  readonly statistics?: BatchStatistics;
  readonly #batchStatistics: BatchStatistics;
  readonly #byName: ReadonlyMap<string, Variable>;
  readonly #tower: Omit<TowerContext, 'normalise'>;
  readonly #patchDropout: number;

  constructor(vision: VisionConfig, head: HeadConfig, options: ViewModelOptions) {
    const { seed, precision, quickGelu, recompute = 'none', trainable = true } = options;
    this.#patchDropout = options.patchDropout ?? 0;
    this.vision = vision;
    this.head = head;
    this.backbone = newBackbone(vision);
    this.#tower = {
      parameter: this.parameter,
      precision,
      quickGelu,
      recomputedBlocks: recomputedBlocks(recompute),
    };
    const scope = `view-model-${instances++}`;
    const make = { seed, init: 'random', scope } as const;
    this.parameters = makeVariables(viewParameterSpecs(vision, head), { ...make, trainable });
    this.buffers = makeVariables(viewBufferSpecs(vision, head), { ...make, trainable: false });
    this.#batchStatistics = new BatchStatistics(this.buffers, scope);
    if (this.#batchStatistics.length > 0) this.statistics = this.#batchStatistics;
    this.#byName = new Map([...this.parameters, ...this.buffers].map(({ name, variable }) => [name, variable]));
  }

  /** Width of z, or the number of classes. */
  get outputWidth(): number {
    return headWidth(this.head);
  }

  /** The parameter or buffer called `name`. */
  readonly parameter: ParameterLookup = <T extends Tensor>(name: string): T => this.#byName.get(name) as Tensor as T;

  /** h: float32 [B, backbone.featureWidth] of normalised pixels [B,H,W,3]. */
  features(x_BHWC: Tensor, options: ForwardOptions): Tensor2D {
    return this.#features(x_BHWC, this.#context(options));
  }

  /** z = g(h), unit length, float32 [B, outputWidth]. */
  project(x_BHWC: Tensor, options: ForwardOptions): Tensor2D {
    const { head } = this;
    if (head.kind === 'classifier') throw wrongHead('project', head);
    const context = this.#context(options);
    return tf.tidy(() => {
      const h = this.#features(x_BHWC, context);
      return moduleScope('projection head', () => {
        if (head.kind === 'moco') return this.#mocoProject(h, head, context);
        const bias = head.batchNorm ? null : this.parameter<Tensor1D>('head.0.bias');
        const hidden = linear(h, this.parameter<Tensor2D>('head.0.weight'), bias);
        const activated = head.batchNorm
          ? context.normalise([hidden], 'head.1', { activation: 'relu' })[0]!
          : relu(hidden);
        const z = linear(activated, this.parameter<Tensor2D>('head.3.weight'), this.parameter<Tensor1D>('head.3.bias'));
        return l2Normalize(z) as Tensor2D;
      });
    });
  }

  /** Class scores, float32 [B, head.classes]. */
  classify(x_BHWC: Tensor, options: ForwardOptions): Tensor2D {
    if (this.head.kind !== 'classifier') throw wrongHead('classify', this.head);
    return tf.tidy(() => {
      const h = this.features(x_BHWC, options);
      return moduleScope(
        'classifier',
        () => linear(h, this.parameter('head.weight'), this.parameter<Tensor1D>('head.bias')) as Tensor2D,
      );
    });
  }

  dispose(): void {
    for (const { variable } of [...this.parameters, ...this.buffers]) variable.dispose();
    this.#batchStatistics.dispose();
  }

  #mocoProject(h: Tensor2D, head: MocoHead, context: TowerContext): Tensor2D {
    const parts = mocoParts(this.backbone.featureWidth, head);
    return l2Normalize(parts.reduce((x, [prefix, shape]) => mlp(x, prefix, shape, context), h)) as Tensor2D;
  }

  #features(x_BHWC: Tensor, context: TowerContext): Tensor2D {
    const pixels = checkedPixels(x_BHWC, this.vision);
    return moduleScope('image tower', () => tf.tidy(() => this.backbone.features(pixels, context)));
  }

  /** Of one forward: several layers may ask for their statistics in it. */
  #context(options: ForwardOptions): TowerContext {
    const { seeds } = options;
    const patchDropout = seeds && this.#patchDropout > 0 ? { rate: this.#patchDropout, seeds } : undefined;
    return { ...this.#tower, patchDropout, normalise: this.#batchStatistics.layer(this.parameter, options) };
  }
}

function wrongHead(verb: string, head: HeadConfig): CoveyError {
  return new CoveyError('INVALID_ARGUMENT', `Cannot ${verb}: the model was made with another head: ${head.kind}`, {
    fields: { head: head.kind },
  });
}
