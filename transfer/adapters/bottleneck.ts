import { gelu, linear, type Tensor, type Tensor1D, type Tensor2D, tf } from '../../engine/index.ts';
import type { ParameterSpec } from '../../models/clip/parameter-shapes.ts';
import type { BlockPlace } from '../../models/clip/transformer.ts';
import type { Adapter, AdapterOptions, OwnParameters } from './adapter.ts';

type BottleneckOptions = Extract<AdapterOptions, { kind: 'bottleneck' }>;

const NORM = /\.ln_(pre|post|1|2)\./;
const FIRST_PROJECTION = /^visual\.transformer\.resblocks\.(\d+)\.attn\.out_proj\.weight$/;
/** Small, so that the first steps move gently (Houlsby et al. 2019, §2.1). */
const DOWN_STD = 0.01;

/**
 * Bottleneck adapters after attention and after the MLP of every block, each before its residual sum (Houlsby et al. 2019, fig. 2):
 * x + W_up·gelu(W_down·x + b) + b′. Up starts at zero, so that it begins as the identity. The layer norms are trained with them. The
 * original's activation is swish; gelu is the towers' own.
 */
export function bottleneckAdapter(options: BottleneckOptions, backbone: readonly ParameterSpec[]): Adapter {
  const { width } = options;
  const specs = backbone.flatMap(({ name, shape }) => {
    const block = FIRST_PROJECTION.exec(name)?.[1];
    if (block === undefined) return [];
    const places = ['attention', 'mlp'] as const;
    return places.flatMap((after) => placeSpecs(prefixOf({ block: Number(block), after }), shape[0]!, width));
  });
  return {
    options,
    specs,
    trainsToo: (name) => NORM.test(name),
    weight: (_name, weight) => weight,
    after: (x, place, own) => adapted(x, prefixOf(place), own),
  };
}

const prefixOf = ({ block, after }: BlockPlace) => `adapter.blocks.${block}.${after}`;

function placeSpecs(prefix: string, width: number, bottleneck: number): ParameterSpec[] {
  const zeros = { kind: 'constant', value: 0 } as const;
  return [
    { name: `${prefix}.down.weight`, shape: [bottleneck, width], initial: { kind: 'normal', std: DOWN_STD } },
    { name: `${prefix}.down.bias`, shape: [bottleneck], initial: zeros },
    { name: `${prefix}.up.weight`, shape: [width, bottleneck], initial: zeros },
    { name: `${prefix}.up.bias`, shape: [width], initial: zeros },
  ];
}

function adapted(x: Tensor, prefix: string, own: OwnParameters): Tensor {
  return tf.tidy(() => {
    const down = linear(x, own<Tensor2D>(`${prefix}.down.weight`), own<Tensor1D>(`${prefix}.down.bias`));
    const up = linear(gelu(down), own<Tensor2D>(`${prefix}.up.weight`), own<Tensor1D>(`${prefix}.up.bias`));
    return tf.add(x, up);
  });
}
