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
import { disposeOwn, makeVariables, type NamedVariable, type SharedVariables } from '../named-variables.ts';
import { type Backbone, checkedPixels, newBackbone, type TowerContext, type TowersContext } from './backbone.ts';
import { BatchStatistics } from './batch-statistics.ts';
import type { LanesTogether } from './lanes-together.ts';
import { mlp } from './mlp-head.ts';
import {
  type HeadConfig,
  headWidth,
  type MocoHead,
  mocoParts,
  type ProjectionHead,
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
  /** What the keys of the head begin with. Default `head`. */
  readonly headKey?: string | undefined;
  /** Parameters of models it is trained with. Default none. */
  readonly shared?: SharedVariables | undefined;
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
  /** See PatchDropout. */
  readonly firstView?: number;
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
  readonly #headKey: string;
  readonly #shared: SharedVariables | undefined;

  constructor(vision: VisionConfig, head: HeadConfig, options: ViewModelOptions) {
    const { seed, precision, quickGelu, recompute = 'none', trainable = true, headKey = 'head', shared } = options;
    this.#headKey = headKey;
    this.#shared = shared;
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
    const make = { seed, init: 'random', scope, shared } as const;
    this.parameters = makeVariables(viewParameterSpecs(vision, head, headKey), { ...make, trainable });
    this.buffers = makeVariables(viewBufferSpecs(vision, head, headKey), { ...make, trainable: false });
    this.#batchStatistics = new BatchStatistics(this.buffers, scope, shared);
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
    if (head.kind !== 'projection' && head.kind !== 'moco') throw wrongHead('project', head);
    const context = this.#context(options);
    return tf.tidy(() => {
      const h = this.#features(x_BHWC, context);
      return moduleScope('projection head', () => {
        if (head.kind === 'moco') return this.#mocoProject(h, head, context);
        return this.#projections([h], head, { ...context, lookups: [this.parameter] })[0]!;
      });
    });
  }

  /** `project` of lanes side by side, in training, whose batch norms see all lanes. */
  projectTogether(xs: readonly Tensor[], together: LanesTogether): Tensor2D[] {
    const { head } = this;
    if (head.kind !== 'projection') throw wrongHead('project lanes together', head);
    const context = this.#contextTogether(together);
    return tf.tidy(() => {
      const hs = this.#featuresTogether(xs, context);
      return moduleScope('projection head', () => this.#projections(hs, head, context));
    });
  }

  /** Class scores, float32 [B, head.classes]. */
  classify(x_BHWC: Tensor, options: ForwardOptions): Tensor2D {
    if (this.head.kind !== 'classifier') throw wrongHead('classify', this.head);
    return tf.tidy(() => {
      const h = this.features(x_BHWC, options);
      return moduleScope('classifier', () => this.#scores(h, this.parameter));
    });
  }

  /** `classify` of lanes side by side, in training, whose batch norms see all lanes. */
  classifyTogether(xs: readonly Tensor[], together: LanesTogether): Tensor2D[] {
    if (this.head.kind !== 'classifier') throw wrongHead('classify lanes together', this.head);
    const context = this.#contextTogether(together);
    return tf.tidy(() => {
      const hs = this.#featuresTogether(xs, context);
      return moduleScope('classifier', () => hs.map((h, lane) => this.#scores(h, together.lookups[lane]!)));
    });
  }

  /** Class scores of pairs, float32 [B, head.classes], of pixels [2 × B, …]: the first picture of every pair, then the second. */
  classifyPairs(x_BHWC: Tensor, options: ForwardOptions): Tensor2D {
    const { head } = this;
    if (head.kind !== 'pair-classifier') throw wrongHead('classify pairs', head);
    return tf.tidy(() => {
      const [first_BD, second_BD] = tf.split(this.features(x_BHWC, options), 2, 0) as [Tensor2D, Tensor2D];
      return moduleScope('pair classifier', () => {
        const pair = head.combine === 'concat' ? tf.concat([first_BD, second_BD], 1) : tf.sub(second_BD, first_BD);
        const hidden = relu(linear(pair, this.#ofHead('0.weight'), this.#ofHead<Tensor1D>('0.bias')));
        return linear(hidden, this.#ofHead('2.weight'), this.#ofHead<Tensor1D>('2.bias')) as Tensor2D;
      });
    });
  }

  dispose(): void {
    disposeOwn([...this.parameters, ...this.buffers], this.#shared);
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

  #featuresTogether(xs: readonly Tensor[], context: TowersContext): Tensor2D[] {
    const pixels = xs.map((x_BHWC) => checkedPixels(x_BHWC, this.vision));
    return moduleScope('image tower', () => tf.tidy(() => this.backbone.featuresTogether(pixels, context)));
  }

  #contextTogether(together: LanesTogether): TowersContext {
    const { parameter: _, ...tower } = this.#tower;
    const normalise = this.#batchStatistics.layerTogether(together, tower.precision);
    return { ...tower, lookups: together.lookups, normalise };
  }

  /** Of one forward: several layers may ask for their statistics in it. */
  #context(options: ForwardOptions): TowerContext {
    const { seeds, firstView } = options;
    const patchDropout = seeds && this.#patchDropout > 0 ? { rate: this.#patchDropout, seeds, firstView } : undefined;
    return { ...this.#tower, patchDropout, normalise: this.#batchStatistics.layer(this.parameter, options) };
  }

  /** SimCLR's g of each lane's features. */
  #projections(
    hs: readonly Tensor2D[],
    { batchNorm }: ProjectionHead,
    { lookups, normalise }: Pick<TowersContext, 'lookups' | 'normalise'>,
  ): Tensor2D[] {
    const key = this.#headKey;
    const hidden = hs.map((h, lane) => {
      const bias = batchNorm ? null : lookups[lane]!<Tensor1D>(`${key}.0.bias`);
      return linear(h, lookups[lane]!<Tensor2D>(`${key}.0.weight`), bias);
    });
    const activated = batchNorm
      ? normalise(hidden, `${key}.1`, { activation: 'relu' })
      : hidden.map((one) => relu(one));
    return activated.map((one, lane) => {
      const [weight, bias] = [lookups[lane]!<Tensor2D>(`${key}.3.weight`), lookups[lane]!<Tensor1D>(`${key}.3.bias`)];
      return l2Normalize(linear(one, weight, bias)) as Tensor2D;
    });
  }

  #scores(h: Tensor2D, lookup: ParameterLookup): Tensor2D {
    const key = this.#headKey;
    return linear(h, lookup<Tensor2D>(`${key}.weight`), lookup<Tensor1D>(`${key}.bias`)) as Tensor2D;
  }

  readonly #ofHead = <T extends Tensor>(name: string): T => this.parameter(`${this.#headKey}.${name}`);
}

function wrongHead(verb: string, head: HeadConfig): CoveyError {
  return new CoveyError('INVALID_ARGUMENT', `Cannot ${verb}: the model was made with another head: ${head.kind}`, {
    fields: { head: head.kind },
  });
}
