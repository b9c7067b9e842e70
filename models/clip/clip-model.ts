import type { ModelConfig } from '../../common/config/run-config.ts';
import { CoveyError } from '../../common/errors.ts';
import type { Tensor, Tensor2D, Variable } from '../../engine/index.ts';
import { l2Normalize, moduleScope, tf } from '../../engine/index.ts';
import { checkedPixels, imageEmbedding } from './image-tower.ts';
import { initialValues } from './initial-values.ts';
import { elementCount, parameterSpecs } from './parameter-shapes.ts';
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
}

export interface Parameter {
  /** open_clip's state-dict key. */
  readonly name: string;
  readonly variable: Variable;
  readonly shape: readonly number[];
}

/** Values by open_clip key, or a function that gives them. */
export type WeightSource =
  | ReadonlyMap<string, Float32Array>
  | ((name: string, shape: readonly number[]) => Float32Array);

let instances = 0;

/**
 * CLIP (Radford et al. 2021) with a ViT image tower and a causal text transformer, to open_clip's numerics. Lives on the tfjs backend
 * that was active when it was made, owns its parameters, and belongs to one thread. Close with `dispose`.
 */
export class ClipModel {
  readonly config: ModelConfig;
  /** In the one stable order of gradients, checkpoints and digests; `logit_scale` is the last but for SigLIP's `logit_bias`. */
  readonly parameters: readonly Parameter[];
  readonly #byName: ReadonlyMap<string, Parameter>;
  readonly #precision: 'fp32' | 'bf16';
  readonly #recomputedBlocks: number;

  constructor(config: ModelConfig, options: ClipModelOptions) {
    const { seed, precision, logitScaleInit = Math.log(1 / 0.07), init = 'random', recompute = 'none' } = options;
    this.config = config;
    this.#precision = precision;
    this.#recomputedBlocks = recomputedBlocks(recompute);
    // tfjs keeps variables in one registry per thread, by name: two models must not collide in it.
    const instance = `clip-${instances++}`;
    this.parameters = parameterSpecs(config, logitScaleInit).map((spec) => {
      const { name, shape } = spec;
      const values = init === 'random' ? initialValues(spec, seed) : new Float32Array(elementCount(shape));
      const initial = tf.tensor(values, [...shape], 'float32');
      const variable = tf.variable(initial, true, `${instance}/${name}`);
      initial.dispose();
      return { name, variable, shape };
    });
    this.#byName = new Map(this.parameters.map((parameter) => [parameter.name, parameter]));
  }

  /** The parameter called `name`. @throws CoveyError NOT_FOUND */
  readonly parameter = <T extends Tensor = Variable>(name: string): T => {
    const found = this.#byName.get(name);
    if (!found)
      throw new CoveyError('NOT_FOUND', `Cannot find a parameter: the model has none called '${name}'`, {
        fields: { name },
      });
    return found.variable as Tensor as T;
  };

  /** Unit-length image embeddings, float32 [B,E], of normalised pixels [B,H,W,3]. */
  encodeImage(x_BHWC: Tensor): Tensor2D {
    const { vision } = this.config;
    const pixels = checkedPixels(x_BHWC, vision);
    return moduleScope('image tower', () =>
      tf.tidy(() => l2Normalize(imageEmbedding(pixels, this.parameter, vision, this.#towerOptions())) as Tensor2D),
    );
  }

  /**
   * Unit-length text embeddings, float32 [B,E], of `batch` captions of `config.text.contextLength` ids each, padded with 0. A tensor is
   * read back to the host (the end tokens are found there), so pass the array where you have it.
   */
  encodeText(ids_BL: Int32Array | Tensor, batch: number): Tensor2D {
    const ids = ids_BL instanceof Int32Array ? ids_BL : (ids_BL.dataSync() as Int32Array);
    const text = textBatch(ids, batch, this.config.text);
    return moduleScope('text tower', () =>
      tf.tidy(
        () => l2Normalize(textFeatures(text, this.parameter, this.config.text, this.#towerOptions())) as Tensor2D,
      ),
    );
  }

  /**
   * Replaces every weight. Nothing is changed unless every parameter is there in its right size.
   * @throws CoveyError INVALID_ARGUMENT naming each parameter that is missing or of another size, or that the model does not have
   */
  setWeights(source: WeightSource): void {
    const problems: string[] = [];
    const values = this.parameters.map(({ name, shape }) => {
      const found = typeof source === 'function' ? source(name, shape) : source.get(name);
      if (!found) problems.push(`${name} is missing`);
      else if (found.length !== elementCount(shape)) {
        problems.push(`${name} has ${found.length} values, not the ${elementCount(shape)} of [${shape}]`);
      }
      return found;
    });
    if (typeof source !== 'function') {
      for (const name of source.keys())
        if (!this.#byName.has(name)) problems.push(`${name} is not a parameter of the model`);
    }
    if (problems.length > 0) {
      throw new CoveyError(
        'INVALID_ARGUMENT',
        `Cannot set the weights: they are of another model: ${problems.join('; ')}`,
        {
          fields: { problems },
        },
      );
    }
    tf.tidy(() => {
      for (const [i, { variable, shape }] of this.parameters.entries()) {
        // A copy: on some backends a tensor shares the array it is made from, and the caller may reuse it.
        variable.assign(tf.tensor(new Float32Array(values[i]!), [...shape], 'float32'));
      }
    });
  }

  /** A host copy of every weight, by open_clip key, in parameter order. */
  readWeights(): Map<string, Float32Array> {
    return new Map(
      this.parameters.map(({ name, variable }) => [name, new Float32Array(variable.dataSync<'float32'>())]),
    );
  }

  dispose(): void {
    for (const { variable } of this.parameters) variable.dispose();
  }

  #towerOptions() {
    return {
      precision: this.#precision,
      quickGelu: this.config.quickGelu,
      recomputedBlocks: this.#recomputedBlocks,
    };
  }
}
