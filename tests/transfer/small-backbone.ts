import { RandomStream } from '../../common/random.ts';
import { type Tensor4D, tf } from '../../engine/index.ts';
import { initialValues } from '../../models/clip/initial-values.ts';
import { backboneSpecs } from '../../models/vision/backbone.ts';
import { type Backbone, backboneOf } from '../../transfer/backbone.ts';

export const SMALL_VISION = { imageSize: 16, patchSize: 8, width: 32, layers: 2, headWidth: 16, mlpRatio: 2 } as const;

/** A ViT with random weights, none of them zero, as if it had been trained. */
export function smallBackbone(seed = 3): Backbone {
  const stream = new RandomStream(seed, 'backbone');
  const tensors = new Map(
    backboneSpecs(SMALL_VISION).map((spec) => {
      const values = initialValues(spec, seed).map((value) => value + stream.normal(0, 0.05));
      return [spec.name, { shape: spec.shape, values }] as const;
    }),
  );
  return backboneOf(tensors, {
    vision: SMALL_VISION,
    quickGelu: false,
    mean: [0.5, 0.5, 0.5],
    std: [0.5, 0.5, 0.5],
    origin: 'a test',
  });
}

const SMALL_RESNET = { kind: 'resnet', depth: 18, width: 8, stem: 'cifar', imageSize: 16 } as const;

/** A ResNet-18 with random weights. */
export function smallResnet(): Backbone {
  const tensors = new Map(
    backboneSpecs(SMALL_RESNET).map((spec) => [spec.name, { shape: spec.shape, values: initialValues(spec, 2) }]),
  );
  const facts = { quickGelu: false, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5], origin: 'a test' } as const;
  return backboneOf(tensors, { vision: SMALL_RESNET, ...facts });
}

export function randomPixels(count: number, side: number = SMALL_VISION.imageSize, seed = 1): Tensor4D {
  const stream = new RandomStream(seed, 'pixels');
  const values = Float32Array.from({ length: count * side * side * 3 }, () => stream.normal(0, 1));
  return tf.tensor4d(values, [count, side, side, 3]);
}
