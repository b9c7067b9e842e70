import { type Tensor, type Tensor2D, tf } from '../../engine/index.ts';
import type { ParameterSpec } from '../../models/clip/parameter-shapes.ts';
import type { Adapter, AdapterOptions, OwnParameters } from './adapter.ts';

type LoraOptions = Extract<AdapterOptions, { kind: 'lora' }>;

const ATTENTION = /\.attn\.(in_proj_weight|out_proj\.weight)$/;
const ALL = /\.(attn\.(in_proj_weight|out_proj\.weight)|mlp\.c_(fc|proj)\.weight)$/;

/**
 * Low-rank updates of a transformer's weights (Hu et al. 2021, eq. 3): W + (α/r)·B·A with B = 0, so that W stands until B moves, and A from
 * U(±1/√inputs), as in the authors' code. The sum is made in every forward, which costs less than one row of a batch; merging is the same sum, once.
 */
export function loraAdapter(options: LoraOptions, backbone: readonly ParameterSpec[]): Adapter {
  const { rank, alpha } = options;
  const targets = backbone.filter(
    ({ name }) => name.includes('resblocks') && (options.targets === 'all' ? ALL : ATTENTION).test(name),
  );
  const names = new Set(targets.map(({ name }) => name));
  const specs = targets.flatMap(({ name, shape }): ParameterSpec[] => {
    const [outputs = 0, inputs = 0] = shape;
    return [
      { name: ownName(name, 'a'), shape: [rank, inputs], initial: { kind: 'uniform', bound: 1 / Math.sqrt(inputs) } },
      { name: ownName(name, 'b'), shape: [outputs, rank], initial: { kind: 'constant', value: 0 } },
    ];
  });
  return {
    options,
    specs,
    trainsToo: () => false,
    weight: (name, weight, own) => (names.has(name) ? updated(weight, name, own) : weight),
  };

  function updated(weight_OI: Tensor, name: string, own: OwnParameters): Tensor {
    return tf.tidy(() => {
      const update_OI = tf.matMul(own<Tensor2D>(ownName(name, 'b')), own<Tensor2D>(ownName(name, 'a')));
      return tf.add(weight_OI, tf.mul(update_OI, alpha / rank));
    });
  }
}

const ownName = (name: string, part: string) => `adapter.${name}.${part}`;
