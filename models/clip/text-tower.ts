import type { TextConfig } from '../../common/config/run-config.ts';
import { CoveyError } from '../../common/errors.ts';
import {
  addTokenAndPosition,
  embedding,
  layerNorm,
  moduleScope,
  type Precision,
  type Tensor2D,
  type Tensor3D,
  tf,
  toCompute,
  toFloat32,
} from '../../engine/index.ts';
import { LAYER_NORM_EPS, type ParameterLookup, transformerPooled } from './transformer.ts';

export interface TextTowerOptions {
  readonly precision: Precision;
  readonly quickGelu: boolean;
  /** See transformer.ts. */
  readonly recomputedBlocks: number;
}

/** Captions ready for the tower: cut to the tokens that can matter, with the flat row of each end token. */
export interface TextBatch {
  readonly ids: Int32Array;
  readonly batch: number;
  readonly tokens: number;
  /** Position of each caption's end token. */
  readonly ends: Int32Array;
}

// Lengths are rounded up to this so that a run meets few distinct shapes (kernel libraries plan once per shape).
const TOKENS_STEP = 2;

/**
 * Finds each caption's end token (the largest id, as open_clip's argmax pooling) and cuts the padding that no caption of the batch
 * needs: under the causal mask nothing after the end token reaches the feature, so the result is the same for less work.
 * @param ids_BL `batch` rows of `contextLength` ids, padded with 0
 * @throws CoveyError INVALID_ARGUMENT for a wrong length or an id outside the vocabulary
 */
export function textBatch(ids_BL: Int32Array, batch: number, { contextLength, vocabSize }: TextConfig): TextBatch {
  if (batch < 1 || ids_BL.length !== batch * contextLength) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot encode text: ${batch} captions of ${contextLength} tokens need ${batch * contextLength} ids: got ${ids_BL.length}`,
      { fields: { batch, contextLength, ids: ids_BL.length } },
    );
  }
  const ends = new Int32Array(batch);
  let longest = 0;
  for (let row = 0; row < batch; row++) {
    const end = endPosition(ids_BL, row * contextLength, contextLength, vocabSize);
    ends[row] = end;
    longest = Math.max(longest, end + 1);
  }
  const tokens = Math.min(contextLength, Math.ceil(longest / TOKENS_STEP) * TOKENS_STEP);
  const ids = new Int32Array(batch * tokens);
  for (let row = 0; row < batch; row++) {
    ids.set(ids_BL.subarray(row * contextLength, row * contextLength + tokens), row * tokens);
  }
  return { ids, batch, tokens, ends };
}

/** Position of the first largest id in one caption. */
function endPosition(ids: Int32Array, offset: number, length: number, vocabSize: number): number {
  let end = 0;
  for (let t = 0; t < length; t++) {
    const id = ids[offset + t]!;
    if (id < 0 || id >= vocabSize) {
      throw new CoveyError(
        'INVALID_ARGUMENT',
        `Cannot encode text: a token id is outside the vocabulary of ${vocabSize}: ${id}; the tokenizer is not this model's`,
        { fields: { id, vocabSize } },
      );
    }
    if (id > ids[offset + end]!) end = t;
  }
  return end;
}

/**
 * Causal text transformer as open_clip's `TextTransformer` with `argmax` pooling.
 * @returns float32 [B,E], not normalised
 */
export function textFeatures(
  text: TextBatch,
  parameter: ParameterLookup,
  config: TextConfig,
  { precision, quickGelu, recomputedBlocks }: TextTowerOptions,
): Tensor2D {
  const { batch, tokens } = text;
  const { width, heads, layers, contextLength } = config;
  const embedded_BTD = moduleScope('token embedding', () =>
    tf.tidy(() => {
      const ids_BT = tf.tensor2d(text.ids, [batch, tokens], 'int32');
      const all: Tensor2D = parameter('positional_embedding');
      const positions_TD = tokens === contextLength ? all : tf.slice(all, [0, 0], [tokens, width]);
      const rows = embedding(parameter('token_embedding.weight'), ids_BT) as Tensor3D;
      return addTokenAndPosition(toCompute(rows, precision), null, positions_TD);
    }),
  );
  const pooled_BD = transformerPooled(embedded_BTD, parameter, {
    prefix: 'transformer.resblocks',
    layers,
    heads,
    causal: true,
    quickGelu,
    recomputedBlocks,
    pooledToken: text.ends,
  });
  // ln_final is row-wise, so it follows the pooling here and precedes it in open_clip.
  const normed = moduleScope('ln_final', () =>
    layerNorm(toFloat32(pooled_BD), parameter('ln_final.weight'), parameter('ln_final.bias'), LAYER_NORM_EPS),
  );
  return moduleScope('projection', () => tf.matMul(normed as Tensor2D, parameter<Tensor2D>('text_projection')));
}
