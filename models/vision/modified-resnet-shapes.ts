import type { ModifiedResnetConfig } from '../../common/config/vision-config.ts';
import { frameworkDefault, normal, normSpecs, type ParameterSpec } from '../parameter-spec.ts';
import type { BlockShape } from './resnet-shapes.ts';
import { hasDownsample } from './resnet-shapes.ts';

const EXPANSION = 4;
/** Pixels per place of the last stage. */
const STRIDE = 32;

export function lastWidth({ width }: ModifiedResnetConfig): number {
  return width * 8 * EXPANSION;
}

/** Places of the last stage, per side. */
export function lastSide({ imageSize }: ModifiedResnetConfig): number {
  return imageSize / STRIDE;
}

export function modifiedResnetBlocks({ blocks, width }: ModifiedResnetConfig): BlockShape[] {
  let inputs = width;
  return blocks.flatMap((count, stage) =>
    Array.from({ length: count }, (_, i) => {
      const planes = width * 2 ** stage;
      const block: BlockShape = {
        name: `layer${stage + 1}.${i}`,
        inputs,
        width: planes,
        outputs: EXPANSION * planes,
        stride: stage > 0 && i === 0 ? 2 : 1,
        kind: 'bottleneck',
      };
      inputs = EXPANSION * planes;
      return block;
    }),
  );
}

/** PyTorch's Conv2d without bias. */
function convSpec(name: string, outputs: number, inputs: number, size: number): ParameterSpec {
  return {
    name: `${name}.weight`,
    shape: [outputs, inputs, size, size],
    initial: frameworkDefault(inputs * size * size),
  };
}

/** bn3's gain starts at 0 (open_clip `ModifiedResNet.init_parameters`). */
function blockSpecs(block: BlockShape): ParameterSpec[] {
  const { name, inputs, width, outputs } = block;
  return [
    convSpec(`${name}.conv1`, width, inputs, 1),
    ...normSpecs(`${name}.bn1`, width),
    convSpec(`${name}.conv2`, width, width, 3),
    ...normSpecs(`${name}.bn2`, width),
    convSpec(`${name}.conv3`, outputs, width, 1),
    ...normSpecs(`${name}.bn3`, outputs, 0),
    ...(hasDownsample(block)
      ? [convSpec(`${name}.downsample.0`, outputs, inputs, 1), ...normSpecs(`${name}.downsample.1`, outputs)]
      : []),
  ];
}

function projectionSpecs(name: string, inputs: number, outputs: number): ParameterSpec[] {
  return [
    { name: `${name}.weight`, shape: [outputs, inputs], initial: normal(inputs ** -0.5) },
    { name: `${name}.bias`, shape: [outputs], initial: frameworkDefault(inputs) },
  ];
}

/** Every parameter in open_clip's order under its keys without `visual.`; the pool's output projection only with `embedDim`. */
export function modifiedResnetParameterSpecs(
  config: ModifiedResnetConfig,
  embedDim: number | undefined,
): ParameterSpec[] {
  const { width } = config;
  const pooled = lastWidth(config);
  return [
    convSpec('conv1', width / 2, 3, 3),
    ...normSpecs('bn1', width / 2),
    convSpec('conv2', width / 2, width / 2, 3),
    ...normSpecs('bn2', width / 2),
    convSpec('conv3', width, width / 2, 3),
    ...normSpecs('bn3', width),
    ...modifiedResnetBlocks(config).flatMap(blockSpecs),
    {
      name: 'attnpool.positional_embedding',
      shape: [lastSide(config) ** 2 + 1, pooled],
      initial: normal(pooled ** -0.5),
    },
    ...['k_proj', 'q_proj', 'v_proj'].flatMap((name) => projectionSpecs(`attnpool.${name}`, pooled, pooled)),
    ...(embedDim === undefined ? [] : projectionSpecs('attnpool.c_proj', pooled, embedDim)),
  ];
}
