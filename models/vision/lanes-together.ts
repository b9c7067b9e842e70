import type { LaneExchange } from '../../engine/index.ts';
import type { ParameterLookup } from '../clip/transformer.ts';

/** Lanes whose forwards go through the model side by side, layer by layer, because their batch norms take statistics over all of them. */
export interface LanesTogether {
  /** By lane: its own leaves for parameters and buffers, by key. */
  readonly lookups: readonly ParameterLookup[];
  /** With the lanes of other workers. */
  readonly exchange: LaneExchange;
}
