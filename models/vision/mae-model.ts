import type { VisionConfig } from '../../common/config/vision-config.ts';
import {
  addTokenAndPosition,
  embedding,
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
import {
  type ParameterLookup,
  type RecomputeOption,
  recomputedBlocks,
  transformerPooled,
} from '../clip/transformer.ts';
import { disposeOwn, makeVariables, type NamedVariable, type SharedVariables } from '../named-variables.ts';
import { checkedPixels, type TowerContext } from './backbone.ts';
import { batchNormLayer } from './batch-norm-layer.ts';
import { type DecoderShape, maeBufferSpecs, maeParameterSpecs, maskedLayout } from './mae-shapes.ts';
import { type PatchMask, rowsOfAll } from './patch-mask.ts';
import { encodeTokens, finalNorm, keptTokens, vitFeatures } from './vit.ts';
import { tokenCount, type VitLayout } from './vit-layout.ts';

export interface MaeModelOptions {
  /** Of the first weights. */
  readonly seed: number;
  /** Activations of encoder and decoder; weights and predictions are float32 always. */
  readonly precision: 'fp32' | 'bf16';
  readonly quickGelu: boolean;
  /** See ClipModelOptions; of both transformers. Default `none`. */
  readonly recompute?: RecomputeOption;
  /** Parameters of models it is trained with. Default none. */
  readonly shared?: SharedVariables | undefined;
}

let instances = 0;

/**
 * A masked autoencoder (MAE, He et al. 2022, §3; `models_mae.py`): a ViT encodes the visible patches alone, and a small transformer, which is
 * thrown away afterwards, predicts the pixels of the hidden ones. Shapes: B pictures, N patches, K visible, M hidden, D and E the widths of
 * encoder and decoder, P pixel values of a patch. Lives on the tfjs backend that was active when it was made, owns what it does not share, belongs
 * to one thread. Close with `dispose`.
 */
export class MaeModel {
  readonly layout: VitLayout;
  /** In the one stable order of gradients, checkpoints and digests: the encoder, then the decoder. */
  readonly parameters: readonly NamedVariable[];
  /** Fixed positions. */
  readonly buffers: readonly NamedVariable[];
  readonly #decoder: DecoderShape;
  readonly #options: MaeModelOptions;
  readonly #tower: TowerContext;
  readonly #byName: ReadonlyMap<string, Variable>;

  constructor(vision: VisionConfig, decoder: DecoderShape, options: MaeModelOptions) {
    const { seed, precision, quickGelu, recompute = 'none', shared } = options;
    this.layout = maskedLayout(vision);
    this.#decoder = decoder;
    this.#options = options;
    const make = { seed, init: 'random', scope: `mae-model-${instances++}`, shared } as const;
    this.parameters = makeVariables(maeParameterSpecs(vision, decoder), { ...make, trainable: true });
    this.buffers = makeVariables(maeBufferSpecs(vision, decoder), { ...make, trainable: false });
    this.#byName = new Map([...this.parameters, ...this.buffers].map(({ name, variable }) => [name, variable]));
    this.#tower = {
      parameter: this.parameter,
      precision,
      quickGelu,
      recomputedBlocks: recomputedBlocks(recompute),
      normalise: batchNormLayer(this.parameter),
    };
  }

  /** The parameter or buffer called `name`. */
  readonly parameter: ParameterLookup = <T extends Tensor>(name: string): T => this.#byName.get(name) as Tensor as T;

  /** h of whole pictures, what transfer starts from: float32 [B,D] of normalised pixels [B,H,W,3]. */
  features(x_BHWC: Tensor): Tensor2D {
    const pixels = checkedPixels(x_BHWC, this.layout);
    return moduleScope('image tower', () => tf.tidy(() => vitFeatures(pixels, this.layout, this.#tower)));
  }

  /** What the hidden patches hold, as told from the visible ones: float32 [B·M,P], each patch row by row, as the pixels lie. */
  predict(x_BHWC: Tensor, mask: PatchMask): Tensor2D {
    return tf.tidy(() => {
      const encoded_BKD = moduleScope('image tower', () => tf.tidy(() => this.#encode(x_BHWC, mask)));
      return moduleScope('decoder', () => tf.tidy(() => this.#decode(encoded_BKD, mask)));
    });
  }

  dispose(): void {
    disposeOwn([...this.parameters, ...this.buffers], this.#options.shared);
  }

  /** Visible patches, behind the class token where there is one, each normalised. */
  #encode(x_BHWC: Tensor, { visible }: PatchMask): Tensor3D {
    const { layout } = this;
    const pixels = checkedPixels(x_BHWC, layout);
    const tokens_BKD = moduleScope('patch embedding', () =>
      tf.tidy(() => keptTokens(pixels, layout, this.#tower, visible)),
    );
    return finalNorm(encodeTokens(tokens_BKD, layout, this.#tower), layout, this.#tower) as Tensor3D;
  }

  #decode(encoded_BKD: Tensor3D, mask: PatchMask): Tensor2D {
    const { width, layers, headWidth } = this.#decoder;
    const { quickGelu } = this.#options;
    const { layerNormEps } = this.layout;
    const [batch] = encoded_BKD.shape;
    const decoded_BNE = transformerPooled(this.#allTokens(encoded_BKD, mask), this.parameter, {
      prefix: 'decoder.transformer.resblocks',
      layers,
      heads: width / headWidth,
      causal: false,
      quickGelu,
      recomputedBlocks: this.#tower.recomputedBlocks,
      pooledToken: null,
      layerNormEps,
    });
    // What follows works row by row: the hidden patches' rows are enough.
    const rows = rowsOfAll(mask.hidden, batch, tokenCount(this.layout), this.#first);
    const all_RE = tf.reshape(toFloat32(decoded_BNE), [-1, width]) as Tensor2D;
    const hidden_ME = embedding(all_RE, tf.tensor1d(rows, 'int32'));
    const normed_ME = layerNorm(
      hidden_ME,
      this.parameter('decoder.norm.weight'),
      this.parameter<Tensor1D>('decoder.norm.bias'),
      layerNormEps,
    );
    return this.#linear(normed_ME, 'decoder.pred') as Tensor2D;
  }

  /** Every patch in its place, a hidden one as the mask token, all with the decoder's positions, in compute precision. */
  #allTokens(encoded_BKD: Tensor3D, { visible }: PatchMask): Tensor3D {
    const { precision } = this.#options;
    const { width } = this.#decoder;
    const [batch, seen] = encoded_BKD.shape;
    const tokens = tokenCount(this.layout);
    const embedded_BKE = toFloat32(this.#linear(toCompute(encoded_BKD, precision), 'decoder.embed'));
    const maskToken_1E = tf.reshape(this.parameter('decoder.mask_token'), [1, width]);
    const table_RE = tf.concat([tf.reshape(embedded_BKE, [-1, width]), maskToken_1E], 0) as Tensor2D;
    const ids = new Int32Array(batch * tokens).fill(batch * seen);
    const first = this.#first;
    if (first > 0) for (let picture = 0; picture < batch; picture++) ids[picture * tokens] = picture * seen;
    const count = seen - first;
    for (const [i, place] of rowsOfAll(visible, batch, tokens, first).entries()) {
      ids[place] = Math.floor(i / count) * seen + first + (i % count);
    }
    const tokens_BNE = embedding(table_RE, tf.tensor2d(ids, [batch, tokens], 'int32')) as Tensor3D;
    return addTokenAndPosition(
      toCompute(tokens_BNE, precision),
      null,
      this.parameter<Tensor2D>('decoder.positional_embedding'),
    );
  }

  /** Tokens before the first patch. */
  get #first(): number {
    return this.layout.classToken ? 1 : 0;
  }

  #linear(x: Tensor, name: string): Tensor {
    return linear(x, this.parameter(`${name}.weight`), this.parameter<Tensor1D>(`${name}.bias`));
  }
}
