import type { ModelConfig } from '../../common/config/run-config.ts';
import { CoveyError } from '../../common/errors.ts';
import type { Tensor, Tensor2D, Variable } from '../../engine/index.ts';
import { l2Normalize, moduleScope, tf } from '../../engine/index.ts';
import {
  assignAll,
  disposeOwn,
  makeVariables,
  type NamedVariable,
  readAll,
  type SharedVariables,
} from '../named-variables.ts';
import { type Backbone, checkedPixels, newBackbone, type TowerContext } from '../vision/backbone.ts';
import { BatchStatistics } from '../vision/batch-statistics.ts';
import type { LanesTogether } from '../vision/lanes-together.ts';
import { bufferSpecs, parameterSpecs } from './parameter-shapes.ts';
import { textBatch, textFeatures } from './text-tower.ts';
import { type RecomputeOption, recomputedBlocks } from './transformer.ts';

export interface ClipModelOptions {
  /** Of the first weights. Not used with `init: 'zeros'`. */
  readonly seed: number;
  /** Activations between the towers' ends; weights and embeddings are float32 always. */
  readonly precision: 'fp32' | 'bf16';
  /** Natural logarithm. Default ln(1/0.07). */
  readonly logitScaleInit?: number;
  /** `zeros` skips drawing weights that `setWeights` will replace at once. Default `random`. */
  readonly init?: 'random' | 'zeros';
  /**
   * Transformer blocks of each tower, from the first, that backward computes again instead of holding what they saved. Same bits, less memory, up
   * to a third more work. Default `none`.
   */
  readonly recompute?: RecomputeOption;
  /** Share of the patches that a forward in training does not see: see models/vision/patch-dropout.ts. Default 0. */
  readonly patchDropout?: number;
  /** Parameters of models it is trained with. Default none. */
  readonly shared?: SharedVariables | undefined;
}

/** Values by open_clip key, or a function that gives them. */
export type WeightSource =
  | ReadonlyMap<string, Float32Array>
  | ((name: string, shape: readonly number[]) => Float32Array);

let instances = 0;

/** How an image tower's batch norms work in a forward. */
export interface EncodeImageOptions {
  /** By the statistics of the pictures given, which `statistics` then holds; otherwise by the running ones. Default false. */
  readonly training?: boolean;
  /** One for each sample: by them patches are dropped, if the model does that. Absent: all are seen. */
  readonly seeds?: Uint32Array | undefined;
}

/**
 * CLIP (Radford et al. 2021) with any image tower and a causal text transformer, to open_clip's numerics. Lives on the tfjs backend
 * that was active when it was made, owns its parameters and buffers, and belongs to one thread. Close with `dispose`.
 */
export class ClipModel {
  readonly config: ModelConfig;
  readonly backbone: Backbone;
  /** In the one stable order of gradients, checkpoints and digests; `logit_scale` is the last but for SigLIP's `logit_bias`. */
  readonly parameters: readonly NamedVariable[];
  /** What no gradient changes: running statistics of batch norms, fixed positions. Empty for CLIP's own ViT. */
  readonly buffers: readonly NamedVariable[];
  /** Of the batch norms; absent where there are none. */
  readonly statistics?: BatchStatistics;
  readonly #batchStatistics: BatchStatistics;
  readonly #byName: ReadonlyMap<string, Variable>;
  readonly #precision: 'fp32' | 'bf16';
  readonly #recomputedBlocks: number;
  readonly #patchDropout: number;
  readonly #shared: SharedVariables | undefined;

  constructor(config: ModelConfig, options: ClipModelOptions) {
    const { seed, precision, logitScaleInit = Math.log(1 / 0.07), init = 'random' } = options;
    const { recompute = 'none', patchDropout = 0, shared } = options;
    this.#shared = shared;
    this.config = config;
    this.backbone = newBackbone(config.vision);
    this.#precision = precision;
    this.#recomputedBlocks = recomputedBlocks(recompute);
    this.#patchDropout = patchDropout;
    // tfjs keeps variables in one registry per thread, by name: two models must not collide in it.
    const scope = `clip-${instances++}`;
    const make = { seed, init, scope, shared };
    this.parameters = makeVariables(parameterSpecs(config, logitScaleInit), { ...make, trainable: true });
    this.buffers = makeVariables(bufferSpecs(config), { ...make, trainable: false });
    this.#batchStatistics = new BatchStatistics(this.buffers, scope, shared);
    if (this.#batchStatistics.length > 0) this.statistics = this.#batchStatistics;
    this.#byName = new Map([...this.parameters, ...this.buffers].map(({ name, variable }) => [name, variable]));
  }

  /** The parameter or buffer called `name`. @throws CoveyError NOT_FOUND */
  readonly parameter = <T extends Tensor = Variable>(name: string): T => {
    const found = this.#byName.get(name);
    if (!found)
      throw new CoveyError('NOT_FOUND', `Cannot find a parameter: the model has none called '${name}'`, {
        fields: { name },
      });
    return found as Tensor as T;
  };

  /** What the image tower ends with, before the projection: float32 [B,F] of normalised pixels [B,H,W,3]. */
  features(x_BHWC: Tensor, options: EncodeImageOptions = {}): Tensor2D {
    const pixels = checkedPixels(x_BHWC, this.config.vision);
    return moduleScope('image tower', () => tf.tidy(() => this.backbone.features(pixels, this.#tower(options))));
  }

  /** Unit-length image embeddings, float32 [B,E], of normalised pixels [B,H,W,3]. */
  encodeImage(x_BHWC: Tensor, options: EncodeImageOptions = {}): Tensor2D {
    const pixels = checkedPixels(x_BHWC, this.config.vision);
    return moduleScope('image tower', () =>
      tf.tidy(() => {
        const features_BF = this.backbone.features(pixels, this.#tower(options));
        return l2Normalize(this.backbone.project(features_BF, this.parameter)) as Tensor2D;
      }),
    );
  }

  /** `encodeImage` and `encodeText` of lanes side by side, in training, whose batch norms see all lanes: [image, text] of each. */
  encodeTogether(
    lanes: readonly { readonly pixels_BHWC: Tensor; readonly tokens: Int32Array; readonly samples: number }[],
    together: LanesTogether,
  ): [Tensor2D, Tensor2D][] {
    const { vision, text } = this.config;
    const { lookups } = together;
    return tf.tidy(() => {
      const normalise = this.#batchStatistics.layerTogether(together, this.#precision);
      const pixels = lanes.map(({ pixels_BHWC }) => checkedPixels(pixels_BHWC, vision));
      const tower = { ...this.#options(), normalise, lookups };
      const features = moduleScope('image tower', () => this.backbone.featuresTogether(pixels, tower));
      return lanes.map(({ tokens, samples }, lane): [Tensor2D, Tensor2D] => {
        const image_BE = this.backbone.project(features[lane]!, lookups[lane]!);
        const batch = textBatch(tokens, samples, text);
        const text_BE = moduleScope('text tower', () => textFeatures(batch, lookups[lane]!, text, this.#options()));
        return [l2Normalize(image_BE) as Tensor2D, l2Normalize(text_BE) as Tensor2D];
      });
    });
  }

  /**
   * Unit-length text embeddings, float32 [B,E], of `batch` captions of `config.text.contextLength` ids each, padded with 0. A tensor is
   * read back to the host (the end tokens are found there), so pass the array where you have it.
   */
  encodeText(ids_BL: Int32Array | Tensor, batch: number): Tensor2D {
    const ids = ids_BL instanceof Int32Array ? ids_BL : (ids_BL.dataSync() as Int32Array);
    const text = textBatch(ids, batch, this.config.text);
    return moduleScope('text tower', () =>
      tf.tidy(() => l2Normalize(textFeatures(text, this.parameter, this.config.text, this.#tower({}))) as Tensor2D),
    );
  }

  /**
   * Replaces every weight and buffer. Nothing is changed unless each is there in its right size.
   * @throws CoveyError INVALID_ARGUMENT naming each that is missing or of another size, or that the model does not have
   */
  setWeights(source: WeightSource): void {
    const own = [...this.parameters, ...this.buffers];
    const values =
      typeof source === 'function' ? new Map(own.map(({ name, shape }) => [name, source(name, shape)])) : source;
    assignAll(own, values);
  }

  /** A host copy of every weight and buffer, by open_clip key, in parameter order. */
  readWeights(): Map<string, Float32Array> {
    return readAll([...this.parameters, ...this.buffers]);
  }

  dispose(): void {
    disposeOwn([...this.parameters, ...this.buffers], this.#shared);
    this.#batchStatistics.dispose();
  }

  #tower({ training = false, seeds }: EncodeImageOptions): TowerContext {
    const patchDropout = seeds && this.#patchDropout > 0 ? { rate: this.#patchDropout, seeds } : undefined;
    const normalise = this.#batchStatistics.layer(this.parameter, { training });
    return { ...this.#options(), parameter: this.parameter, patchDropout, normalise };
  }

  #options() {
    return {
      precision: this.#precision,
      quickGelu: this.config.quickGelu,
      recomputedBlocks: this.#recomputedBlocks,
    };
  }
}
