import { CoveyError } from '../common/errors.ts';
import {
  l2Normalize,
  linear,
  moduleScope,
  type Precision,
  type Tensor,
  type Tensor1D,
  type Tensor2D,
  tf,
} from '../engine/index.ts';
import type { ParameterLookup } from '../models/clip/transformer.ts';
import type { HostTensor } from '../models/formats/safetensors.ts';
import type { LinearClassifier } from '../models/linear/logistic-regression.ts';
import {
  assignAll,
  disposeOwn,
  makeVariables,
  type NamedVariable,
  readTensors,
  type SharedVariables,
} from '../models/named-variables.ts';
import type { ParameterSpec } from '../models/parameter-spec.ts';
import {
  checkedPixels,
  type Backbone as ImageTower,
  newBackbone,
  type TowerContext,
} from '../models/vision/backbone.ts';
import { BatchStatistics } from '../models/vision/batch-statistics.ts';
import type { Adapter, AdapterOptions } from './adapters/adapter.ts';
import { newAdapter } from './adapters/new-adapter.ts';
import { type Backbone, type Projection, withWeights } from './backbone.ts';
import { headTensors } from './head-file.ts';

export interface NetworkOptions {
  /** Outputs of the new head. Without it there is none. */
  readonly classes?: number;
  /**
   * What the head reads: the tower's features, or (of a backbone trained with texts) their unit-length projections, where a text's embedding is a
   * class's weight. Default `features`.
   */
  readonly space?: 'features' | 'embedding';
  readonly adapter?: AdapterOptions;
  /** Of the head's and the adapter's first values. */
  readonly seed: number;
  /** Of another network on the same backbone, which keeps and disposes them: see `shared`. Default none. */
  readonly beside?: SharedVariables | undefined;
  /** Activations of the tower; weights, features and logits are float32 always. */
  readonly precision: Precision;
}

/** How batch norms work in a forward. */
export interface ForwardOptions {
  /** By the statistics of the pictures given, which `statistics` then holds; otherwise by the running ones. Default false. */
  readonly training?: boolean;
}

let instances = 0;

/**
 * A backbone, perhaps an adapter in it, perhaps a linear head on its features. Lives on the tfjs backend that was active when it was made, owns
 * its variables, belongs to one thread. Close with `dispose`. Shapes: B pictures, F features, K classes.
 */
export class TransferNetwork {
  readonly source: Backbone;
  readonly adapter: Adapter | undefined;
  readonly featureWidth: number;
  readonly precision: Precision;
  readonly space: 'features' | 'embedding';
  /** The backbone's, with its keys, then `adapter.…`, then `head.…`: the stable order of gradients and files. */
  readonly parameters: readonly NamedVariable[];
  readonly #byName: ReadonlyMap<string, NamedVariable>;
  /** What no gradient changes: running statistics of batch norms, fixed positions. */
  readonly buffers: readonly NamedVariable[];
  /** Of the batch norms, where there are any: see `ForwardOptions`. */
  readonly statistics: BatchStatistics;
  readonly #beside: SharedVariables | undefined;
  readonly #tower: ImageTower;
  readonly #context: Omit<TowerContext, 'normalise'>;

  constructor(source: Backbone, options: NetworkOptions) {
    const { classes, seed, precision } = options;
    this.source = source;
    this.precision = precision;
    this.space = options.space ?? 'features';
    const projection = this.space === 'embedding' ? projectionOf(source) : undefined;
    this.#tower = newBackbone(source.vision);
    this.featureWidth = projection?.embedDim ?? this.#tower.featureWidth;
    const backbone = this.#tower.parameterSpecs();
    this.adapter = options.adapter === undefined ? undefined : newAdapter(options.adapter, backbone);
    const own = [...(this.adapter?.specs ?? []), ...headSpecs(classes, this.featureWidth)];
    const scope = `transfer-${instances++}`;
    const { beside } = options;
    this.#beside = beside;
    const trainable = true;
    const shared = [...(projection?.tensors ?? [])].map(([name, { shape }]) => ({ name, shape, initial: ZEROS }));
    const tower = makeVariables([...backbone, ...shared], { seed, init: 'zeros', trainable, scope, shared: beside });
    this.parameters = [...tower, ...makeVariables(own, { seed, init: 'random', trainable, scope })];
    this.buffers = makeVariables(this.#tower.bufferSpecs(), {
      seed,
      init: 'zeros',
      trainable: false,
      scope,
      shared: beside,
    });
    this.#byName = new Map([...this.parameters, ...this.buffers].map((one) => [one.name, one]));
    const filled = [...tower, ...this.buffers].filter(({ name }) => beside?.has(name) !== true);
    const given = (name: string) => (source.weights.get(name) ?? projection?.tensors.get(name))!.values;
    assignAll(filled, new Map(filled.map(({ name }) => [name, given(name)])));
    this.statistics = new BatchStatistics(this.buffers, scope);
    const after = this.adapter?.after?.bind(this.adapter);
    this.#context = {
      parameter: this.#weight,
      precision,
      quickGelu: source.quickGelu,
      recomputedBlocks: 0,
      insert: after && ((x, place) => after(x, place, this.#own)),
    };
  }

  /** What the head reads: float32 [B,F] of normalised pixels. */
  features(x_BHWC: Tensor, { training = false }: ForwardOptions = {}): Tensor2D {
    const pixels = checkedPixels(x_BHWC, this.source.vision);
    return moduleScope('image tower', () =>
      tf.tidy(() => {
        const normalise = this.statistics.layer(this.#weight, { training });
        const features_BF = this.#tower.features(pixels, { ...this.#context, normalise });
        if (this.space === 'features') return features_BF;
        return l2Normalize(this.#tower.project(features_BF, this.#own)) as Tensor2D;
      }),
    );
  }

  /** Class scores, float32 [B,K]. */
  logits(x_BHWC: Tensor, options: ForwardOptions = {}): Tensor2D {
    return tf.tidy(() => this.classify(this.features(x_BHWC, options)));
  }

  /** The head alone: class scores [B,K] of features [B,F]. */
  classify(features_BF: Tensor2D): Tensor2D {
    return moduleScope(
      'head',
      () => linear(features_BF, this.#own<Tensor2D>('head.weight'), this.#own<Tensor1D>('head.bias')) as Tensor2D,
    );
  }

  /** Puts a linear classifier of the features in the head's place. */
  setHead(classifier: LinearClassifier): void {
    this.write(headTensors(classifier));
  }

  /** Host copies of parameters and buffers, all or those that `chosen` names. */
  read(chosen: (name: string) => boolean = () => true): Map<string, HostTensor> {
    return readTensors([...this.parameters, ...this.buffers].filter(({ name }) => chosen(name)));
  }

  /** What the head consists of: of one that reads embeddings the projection as well. */
  readHead(): Map<string, HostTensor> {
    const projected = this.space === 'embedding' ? this.source.projection?.tensors : undefined;
    return this.read((name) => name.startsWith('head.') || projected?.has(name) === true);
  }

  /** Replaces the parameters and buffers that are given. @throws CoveyError INVALID_ARGUMENT naming what does not fit; nothing is changed then */
  write(tensors: ReadonlyMap<string, HostTensor>): void {
    const known = [...this.parameters, ...this.buffers].filter(({ name }) => tensors.has(name));
    assignAll(known, new Map([...tensors].map(([name, { values }]) => [name, values])));
  }

  /**
   * The backbone as it is now, with the adapter's changes in its weights: without the adapter it computes the same.
   * @throws CoveyError UNSUPPORTED for an adapter that adds layers
   */
  mergedBackbone(origin: string): Backbone {
    if (this.adapter?.after !== undefined) {
      throw new CoveyError(
        'UNSUPPORTED',
        `Cannot merge ${this.adapter.options.kind} adapters: they are layers of their own, not a change of weights; keep the adapter's file beside the backbone`,
      );
    }
    const weights = new Map<string, HostTensor>();
    for (const [name, { shape }] of this.source.weights) {
      const values = tf.tidy(
        () => new Float32Array(this.#weight(name).dataSync<'float32'>()),
      ) as unknown as Float32Array;
      weights.set(name, { shape, values });
    }
    for (const [name, tensor] of this.#projection) weights.set(name, tensor);
    return withWeights(this.source, weights, origin);
  }

  /** As it was trained here, or as the backbone has it. */
  get #projection(): ReadonlyMap<string, HostTensor> {
    const theirs = this.source.projection?.tensors ?? new Map<string, HostTensor>();
    return this.space === 'embedding' ? this.read((name) => theirs.has(name)) : theirs;
  }

  /** Variables of the backbone for a network beside this one, but for those that it has values of its own for. */
  shared(except: ReadonlySet<string>): SharedVariables {
    const all = [...this.parameters, ...this.buffers].filter(({ name }) => name.startsWith('visual.'));
    return new Map(all.flatMap((one) => (except.has(one.name) ? [] : [[one.name, one] as const])));
  }

  dispose(): void {
    disposeOwn([...this.parameters, ...this.buffers], this.#beside);
    this.statistics.dispose();
  }

  readonly #own: ParameterLookup = <T extends Tensor>(name: string): T => {
    const found = this.#byName.get(name);
    if (found === undefined)
      throw new CoveyError('NOT_FOUND', `Cannot find a parameter: there is none called '${name}'`);
    return found.variable as Tensor as T;
  };

  readonly #weight: ParameterLookup = <T extends Tensor>(name: string): T => {
    const weight = this.#own(name);
    return (this.adapter?.weight(name, weight, this.#own) ?? weight) as T;
  };
}

const ZEROS = { kind: 'constant', value: 0 } as const;

function projectionOf({ projection, origin }: Backbone): Projection {
  if (projection !== undefined) return projection;
  throw new CoveyError(
    'UNSUPPORTED',
    `Cannot use the embeddings of ${origin}: it was not trained with texts and has no projection to a space shared with them; use its features`,
  );
}

/** Small at the start: every class is nearly as likely (N(0, 0.01²), as in MAE and MoCo v3 linear heads). */
function headSpecs(classes: number | undefined, features: number): ParameterSpec[] {
  if (classes === undefined) return [];
  return [
    { name: 'head.weight', shape: [classes, features], initial: { kind: 'normal', std: 0.01 } },
    { name: 'head.bias', shape: [classes], initial: ZEROS },
  ];
}
