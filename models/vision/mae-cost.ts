import type { VisionConfig } from '../../common/config/vision-config.ts';
import { blocksFlops, product } from '../clip/block-cost.ts';
import { DECODER_MLP_RATIO, type DecoderShape, maskedLayout } from './mae-shapes.ts';
import { maskedCounts } from './patch-mask.ts';
import { patchCount, tokenCount } from './vit-layout.ts';

/** Matrix products of one picture: the encoder over its visible patches, the decoder over all, pixels of the hidden ones. */
export function maeFlops(
  vision: VisionConfig,
  { maskRatio, decoder }: { readonly maskRatio: number; readonly decoder: DecoderShape },
): { readonly forward: number; readonly backward: number } {
  const layout = maskedLayout(vision);
  const { width, layers, mlpRatio, patchSize } = layout;
  const { visible, hidden } = maskedCounts(patchCount(layout), maskRatio);
  const all = tokenCount(layout);
  const seen = all - hidden;
  const pixels = 3 * patchSize ** 2;
  const patchEmbedding = product(visible, pixels, width);
  const encoder = blocksFlops({ width, layers, mlpRatio, tokens: seen, causal: false, pooledRows: seen });
  const shape = { width: decoder.width, layers: decoder.layers, mlpRatio: DECODER_MLP_RATIO };
  const decoding =
    product(seen, width, decoder.width) +
    blocksFlops({ ...shape, tokens: all, causal: false, pooledRows: all }) +
    product(hidden, decoder.width, pixels);
  return {
    forward: patchEmbedding + encoder + decoding,
    // Nobody needs the gradient of the pixels.
    backward: patchEmbedding + 2 * (encoder + decoding),
  };
}
