import { z } from 'zod';
import type { Tensor } from '../../engine/index.ts';
import type { ParameterSpec } from '../../models/clip/parameter-shapes.ts';
import type { BlockPlace } from '../../models/clip/transformer.ts';

/** Where to find an adapter's own parameters, by their whole names. */
export type OwnParameters = <T extends Tensor>(name: string) => T;

/**
 * A small change to a frozen backbone. Its parameters are called `adapter.…`; at its first values the backbone's outputs are the same, bit for
 * bit. One that changes weights (`weight`) can be merged into them; one that adds layers (`after`) cannot.
 */
export interface Adapter {
  readonly options: AdapterOptions;
  /** Own parameters in a stable order. Allocates nothing. */
  readonly specs: readonly ParameterSpec[];
  /** Is this parameter of the backbone trained as well? */
  trainsToo(name: string): boolean;
  /** The weight that stands in for the backbone's, or the backbone's own. Differentiable. */
  weight(name: string, weight: Tensor, own: OwnParameters): Tensor;
  /** What follows a block's attention or MLP, before the residual sum. */
  after?(x: Tensor, place: BlockPlace, own: OwnParameters): Tensor;
}

export const adapterOptionsSchema = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('lora'),
    /** Of the update B·A. */
    rank: z.int().positive(),
    /** The update is multiplied by alpha/rank. */
    alpha: z.number().positive(),
    targets: z.enum(['attention', 'all']),
  }),
  z.strictObject({
    kind: z.literal('bottleneck'),
    /** Width M of the bottleneck: a layer costs 2·D·M multiplications a token, twice a block. */
    width: z.int().positive(),
  }),
  z.strictObject({
    kind: z.literal('conv'),
    placement: z.enum(['series', 'parallel']),
  }),
]);

export type AdapterOptions = z.infer<typeof adapterOptionsSchema>;
export type AdapterKind = AdapterOptions['kind'];
