import type { ModelConfig } from '../../common/config/run-config.ts';
import {
  addTokenAndPosition,
  embedding,
  gelu,
  layerNorm,
  linear,
  moduleScope,
  type Tensor,
  type Tensor1D,
  type Tensor2D,
  type Tensor3D,
  tf,
  toCompute,
  toFloat32,
  type Variable,
} from '../../engine/index.ts';
import { LAYER_NORM_EPS, type RecomputeOption, recomputedBlocks, transformerPooled } from '../clip/transformer.ts';
import { disposeOwn, makeVariables, type NamedVariable, type SharedVariables } from '../named-variables.ts';
import { clozeParameterSpecs } from './cloze-shapes.ts';
import type { MaskedText } from './masked-text.ts';

export interface ClozeModelOptions {
  /** Of the first weights. */
  readonly seed: number;
  /** Activations of the tower; weights and logits are float32 always. */
  readonly precision: 'fp32' | 'bf16';
  /** See ClipModelOptions. Default `none`. */
  readonly recompute?: RecomputeOption;
  /** Whether the output's weights are the token embedding. */
  readonly tied: boolean;
  /** Parameters of models it is trained with. Default none. */
  readonly shared?: SharedVariables | undefined;
}

let instances = 0;

/**
 * CLIP's text tower as a guesser of words: the same parameters under open_clip's keys, but every token sees all others of its caption (BERT,
 * Devlin et al. 2019), and a head over the vocabulary. Lives on the tfjs backend that was active when it was made, owns what it does not
 * share, belongs to one thread. Close with `dispose`.
 */
export class ClozeModel {
  /** In the one stable order of gradients, checkpoints and digests: the tower, then the head. */
  readonly parameters: readonly NamedVariable[];
  readonly #config: ModelConfig;
  readonly #options: ClozeModelOptions;
  readonly #byName: ReadonlyMap<string, Variable>;

  constructor(config: ModelConfig, options: ClozeModelOptions) {
    this.#config = config;
    this.#options = options;
    const { seed, shared } = options;
    const scope = `cloze-model-${instances++}`;
    this.parameters = makeVariables(clozeParameterSpecs(config, options), {
      seed,
      init: 'random',
      trainable: true,
      scope,
      shared,
    });
    this.#byName = new Map(this.parameters.map(({ name, variable }) => [name, variable]));
  }

  /** Scores of all tokens for every guess: float32 [M, vocabSize]. */
  guess(text: MaskedText): Tensor2D {
    return tf.tidy(() => {
      const tokens_BTD = moduleScope('text tower', () => tf.tidy(() => this.#tower(text)));
      return moduleScope('cloze head', () => this.#head(tokens_BTD, text.places));
    });
  }

  dispose(): void {
    disposeOwn(this.parameters, this.#options.shared);
  }

  #tower({ ids, batch, tokens, lengths, hidden }: MaskedText): Tensor3D {
    const { text, quickGelu } = this.#config;
    const { precision, recompute = 'none' } = this.#options;
    const embedded_BTD = moduleScope('token embedding', () =>
      tf.tidy(() => {
        const rows_BTD = embedding(
          this.#parameter('token_embedding.weight'),
          tf.tensor2d(ids, [batch, tokens], 'int32'),
        );
        const hidden_BT1 = tf.tensor3d(hidden, [batch, tokens, 1]);
        const shown_BTD = tf.mul(rows_BTD, tf.sub(1, hidden_BT1));
        const masked_BTD = tf.add(shown_BTD, tf.mul(hidden_BT1, this.#parameter('cloze.mask_embedding'))) as Tensor3D;
        const positions_TD = tf.slice(this.#parameter<Tensor2D>('positional_embedding'), [0, 0], [tokens, text.width]);
        return addTokenAndPosition(toCompute(masked_BTD, precision), null, positions_TD);
      }),
    );
    return transformerPooled(embedded_BTD, this.#parameter, {
      prefix: 'transformer.resblocks',
      layers: text.layers,
      heads: text.heads,
      causal: false,
      lengths,
      quickGelu,
      recomputedBlocks: recomputedBlocks(recompute),
      pooledToken: null,
    }) as Tensor3D;
  }

  #head(tokens_BTD: Tensor3D, places: Int32Array): Tensor2D {
    const { width } = this.#config.text;
    const all_KD = tf.reshape(toFloat32(tokens_BTD), [-1, width]) as Tensor2D;
    const guessed_MD = embedding(all_KD, tf.tensor1d(places, 'int32'));
    const normed_MD = this.#norm(guessed_MD, 'ln_final');
    const dense_MD = linear(
      normed_MD,
      this.#parameter('cloze.dense.weight'),
      this.#parameter<Tensor1D>('cloze.dense.bias'),
    );
    const weight_VD = this.#options.tied ? 'token_embedding.weight' : 'cloze.decoder.weight';
    const transformed_MD = this.#norm(gelu(dense_MD), 'cloze.norm');
    return linear(transformed_MD, this.#parameter(weight_VD), this.#parameter<Tensor1D>('cloze.bias')) as Tensor2D;
  }

  #norm(x: Tensor, name: string): Tensor {
    return layerNorm(x, this.#parameter(`${name}.weight`), this.#parameter<Tensor1D>(`${name}.bias`), LAYER_NORM_EPS);
  }

  readonly #parameter = <T extends Tensor>(name: string): T => this.#byName.get(name) as Tensor as T;
}
