import type { TextConfig } from '../../../common/config/run-config.ts';
import { LAYER_NORM_EPS } from '../../clip/transformer.ts';
import { transposed } from '../weights.ts';
import type { GraphWriter, TensorLookup } from './graph-writer.ts';
import { writeBlocks, writeLayerNorm } from './transformer-graph.ts';

/** Far below every score and far above float32's least number: its exponential is 0, and nothing becomes NaN. */
const MASKED = -1e9;

/** The text transformer of models/clip/text-tower.ts, written down. @returns [B,E], not normalised */
export function writeTextEmbedding<V>(
  graph: GraphWriter<V>,
  tensor: TensorLookup,
  { contextLength, width, heads, layers }: TextConfig,
  quickGelu: boolean,
): V {
  const ids = graph.tokenIds(contextLength);
  const table = 'token_embedding.weight';
  const rows_BTD = graph.rows(table, tensor(table), ids);
  const positions = graph.constant('positional_embedding', tensor('positional_embedding'));
  const embedded = graph.add(rows_BTD, graph.cutToTokens(positions, ids, ['tokens', width]));
  const mask = graph.constant('causal_mask', causalMask(contextLength));
  const tokens = writeBlocks(graph, embedded, tensor, {
    prefix: 'transformer.resblocks',
    layers,
    heads,
    width,
    quickGelu,
    tokens: 'tokens',
    mask: graph.cutToTokens(mask, ids, ['tokens', 'tokens']),
    eps: LAYER_NORM_EPS,
  });
  // ln_final goes row by row, so it may follow the choice of the row.
  const end = writeLayerNorm(graph, graph.endToken(tokens, ids), 'ln_final', tensor, LAYER_NORM_EPS);
  return graph.linear(end, 'text_projection', transposed(tensor('text_projection')), null);
}

function causalMask(length: number) {
  const values = Float32Array.from({ length: length ** 2 }, (_, i) =>
    i % length > Math.floor(i / length) ? MASKED : 0,
  );
  return { shape: [length, length], values };
}
