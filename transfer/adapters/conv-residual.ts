import { type Tensor, type Tensor2D, tf } from '../../engine/index.ts';
import type { ParameterSpec } from '../../models/clip/parameter-shapes.ts';
import type { Adapter, AdapterOptions, OwnParameters } from './adapter.ts';

type ConvOptions = Extract<AdapterOptions, { kind: 'conv' }>;

/** The 3×3 convolutions of residual blocks: where Rebuffi et al. put their adapters. */
const ADAPTED = /(^|\.)layer\d+\.\d+\.conv\d+\.weight$/;
const NORM = /(^|\.)(bn\d|downsample\.1)\.(weight|bias|running_mean|running_var)$/;

/**
 * 1×1 residual adapters of a ResNet's 3×3 filters, α = 0 at the start. Series (Rebuffi et al. 2017, eq. 4): ρ(y) = y + α⊛y after the
 * convolution f⊛x, so the filter becomes f + α·f. Parallel (2018, eq. 2): f⊛x + α⊛x, so α is added to the middle of f. Both are one filter, which
 * is what forward convolves with: the same function as the extra layers, without their activations. The norms are the
 * task's own, with their statistics where they follow the task's pictures.
 */
export function convResidualAdapter(options: ConvOptions, backbone: readonly ParameterSpec[]): Adapter {
  const adapted = backbone.filter(({ name, shape }) => ADAPTED.test(name) && shape[2] === 3);
  const names = new Set(adapted.map(({ name }) => name));
  const specs = adapted.map(({ name, shape: [outputs = 0, inputs = 0] }): ParameterSpec => {
    const sources = options.placement === 'series' ? outputs : inputs;
    return { name: ownName(name), shape: [outputs, sources], initial: { kind: 'constant', value: 0 } };
  });
  return {
    options,
    specs,
    trainsToo: (name) => NORM.test(name),
    weight: (name, weight, own) => {
      if (!names.has(name)) return weight;
      return options.placement === 'series' ? inSeries(weight, name, own) : inParallel(weight, name, own);
    },
  };
}

const ownName = (name: string) => `adapter.${name.replace(/\.weight$/, '')}.alpha`;

function inSeries(weight_OIHW: Tensor, name: string, own: OwnParameters): Tensor {
  return tf.tidy(() => {
    const [outputs = 0, inputs = 0, height = 0, width = 0] = weight_OIHW.shape;
    const flat = tf.reshape(weight_OIHW, [outputs, inputs * height * width]) as Tensor2D;
    const change = tf.matMul(own<Tensor2D>(ownName(name)), flat);
    return tf.add(weight_OIHW, tf.reshape(change, weight_OIHW.shape));
  });
}

function inParallel(weight_OIHW: Tensor, name: string, own: OwnParameters): Tensor {
  return tf.tidy(() => {
    const [outputs = 0, inputs = 0, height = 0, width = 0] = weight_OIHW.shape;
    const alpha = tf.reshape(own(ownName(name)), [outputs, inputs, 1, 1]);
    const around = (side: number): [number, number] => [(side - 1) / 2, (side - 1) / 2];
    return tf.add(weight_OIHW, tf.pad(alpha, [[0, 0], [0, 0], around(height), around(width)]));
  });
}
