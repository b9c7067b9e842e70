import { CoveyError } from '../../common/errors.ts';
import { frameworkDefault, normal, normSpecs, type ParameterSpec, runningSpecs } from '../parameter-spec.ts';

export type ResNetDepth = 18 | 34 | 50 | 101 | 152;

export interface ResNetConfig {
  readonly depth: ResNetDepth;
  /** Outputs of the classifier `fc`; without it the model ends with its features. */
  readonly classes?: number;
  /** `imagenet`: 7×7 of stride 2, then max pooling. `cifar`: 3×3 of stride 1 for small pictures (Chen et al. 2020, appendix B.9). Default `imagenet`. */
  readonly stem?: 'imagenet' | 'cifar';
  /** Channels of the first stage. Default 64. */
  readonly width?: number;
  /** The last normalisation of every block starts at zero, so that a block starts as the identity (Goyal et al. 2017). Default false. */
  readonly zeroInitResidual?: boolean;
}

/** One residual block. */
export interface BlockShape {
  /** Key prefix: `layer2.0`. */
  readonly name: string;
  readonly inputs: number;
  readonly width: number;
  readonly outputs: number;
  /** Of the 3×3 convolution (the first one in a basic block) and of the shortcut. */
  readonly stride: number;
  readonly kind: 'basic' | 'bottleneck';
}

const STAGE_BLOCKS: Readonly<Record<ResNetDepth, readonly number[]>> = {
  18: [2, 2, 2, 2],
  34: [3, 4, 6, 3],
  50: [3, 4, 6, 3],
  101: [3, 4, 23, 3],
  152: [3, 8, 36, 3],
};

/** The blocks in order (He et al. 2016, table 1; v1.5: a bottleneck's stride is in its 3×3). */
export function resNetBlocks(depth: ResNetDepth, firstWidth = 64): BlockShape[] {
  const stages = STAGE_BLOCKS[depth];
  if (stages === undefined) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot make a ResNet of depth ${depth}: there are 18, 34, 50, 101 and 152`,
      { fields: { depth } },
    );
  }
  const kind = depth < 50 ? 'basic' : 'bottleneck';
  const expansion = kind === 'basic' ? 1 : 4;
  const blocks: BlockShape[] = [];
  let inputs = firstWidth;
  for (const [stage, count] of stages.entries()) {
    const width = firstWidth * 2 ** stage;
    for (let i = 0; i < count; i++) {
      const stride = stage > 0 && i === 0 ? 2 : 1;
      blocks.push({ name: `layer${stage + 1}.${i}`, inputs, width, outputs: expansion * width, stride, kind });
      inputs = expansion * width;
    }
  }
  return blocks;
}

/** Whether the shortcut has a convolution of its own, because places or channels change. */
export function hasDownsample({ inputs, outputs, stride }: BlockShape): boolean {
  return stride !== 1 || inputs !== outputs;
}

/** Channels of the features before `fc`. */
export function featureWidth(depth: ResNetDepth, firstWidth = 64): number {
  return firstWidth * (depth < 50 ? 8 : 32);
}

/** kaiming_normal(fan_out, relu): N(0, 2/(out·k²)). */
export function convSpec(name: string, outputs: number, inputs: number, size: number): ParameterSpec {
  return {
    name: `${name}.weight`,
    shape: [outputs, inputs, size, size],
    initial: normal(Math.sqrt(2 / (outputs * size * size))),
  };
}

function blockSpecs(block: BlockShape, lastGain: number): ParameterSpec[] {
  const { name, inputs, width, outputs, kind } = block;
  const main =
    kind === 'basic'
      ? [
          convSpec(`${name}.conv1`, width, inputs, 3),
          ...normSpecs(`${name}.bn1`, width),
          convSpec(`${name}.conv2`, width, width, 3),
          ...normSpecs(`${name}.bn2`, width, lastGain),
        ]
      : [
          convSpec(`${name}.conv1`, width, inputs, 1),
          ...normSpecs(`${name}.bn1`, width),
          convSpec(`${name}.conv2`, width, width, 3),
          ...normSpecs(`${name}.bn2`, width),
          convSpec(`${name}.conv3`, outputs, width, 1),
          ...normSpecs(`${name}.bn3`, outputs, lastGain),
        ];
  if (!hasDownsample(block)) return main;
  return [...main, convSpec(`${name}.downsample.0`, outputs, inputs, 1), ...normSpecs(`${name}.downsample.1`, outputs)];
}

/** Every parameter in torchvision's order, with its key, PyTorch's shape and torchvision's way to start it. Allocates nothing. */
export function resNetParameterSpecs(config: ResNetConfig): ParameterSpec[] {
  const { depth, classes, zeroInitResidual = false, stem = 'imagenet', width = 64 } = config;
  const features = featureWidth(depth, width);
  const head = frameworkDefault(features);
  return [
    convSpec('conv1', width, 3, stem === 'cifar' ? 3 : 7),
    ...normSpecs('bn1', width),
    ...resNetBlocks(depth, width).flatMap((block) => blockSpecs(block, zeroInitResidual ? 0 : 1)),
    ...(classes === undefined
      ? []
      : [
          { name: 'fc.weight', shape: [classes, features], initial: head },
          { name: 'fc.bias', shape: [classes], initial: head },
        ]),
  ];
}

/** The running statistics of every normalisation, in the order of the parameters. */
export function resNetBufferSpecs(config: ResNetConfig): ParameterSpec[] {
  return runningSpecsOf(resNetParameterSpecs(config));
}

/** Those of every batch norm among the parameters. */
export function runningSpecsOf(parameters: readonly ParameterSpec[]): ParameterSpec[] {
  const gains = parameters.filter(({ name }) => /(bn\d|downsample\.1)\.weight$/.test(name));
  return gains.flatMap(({ name, shape }) => runningSpecs(name.slice(0, -'.weight'.length), shape[0]!));
}
