import type { ModelConfig, VisionConfig } from '../../common/config/run-config.ts';

/** How a parameter starts. `normal`: N(0, std²). `uniform`: U(−bound, bound). */
export type Initial =
  | { readonly kind: 'normal'; readonly std: number }
  | { readonly kind: 'uniform'; readonly bound: number }
  | { readonly kind: 'constant'; readonly value: number };

export interface ParameterSpec {
  /** open_clip's state-dict key. */
  readonly name: string;
  /** PyTorch's layout: linear weights are [out, in]. */
  readonly shape: readonly number[];
  readonly initial: Initial;
}

const normal = (std: number): Initial => ({ kind: 'normal', std });
const uniform = (bound: number): Initial => ({ kind: 'uniform', bound });
const constant = (value: number): Initial => ({ kind: 'constant', value });

/** kaiming_uniform(a=√5) of PyTorch's Linear and Conv, weight and bias alike: U(±1/√fanIn). */
const frameworkDefault = (fanIn: number): Initial => uniform(1 / Math.sqrt(fanIn));

/** The initial values of one residual block that differ between the towers. */
interface BlockInit {
  readonly inProj: Initial;
  readonly outProj: Initial;
  readonly cFc: Initial;
  readonly cProj: Initial;
}

/** Image blocks keep PyTorch's defaults: xavier_uniform on the packed [3w, w] in_proj, kaiming on the linears. */
function imageBlockInit(width: number, hidden: number): BlockInit {
  return {
    inProj: uniform(Math.sqrt(6 / (width + 3 * width))),
    outProj: frameworkDefault(width),
    cFc: frameworkDefault(width),
    cProj: frameworkDefault(hidden),
  };
}

/** Text blocks as open_clip's `TextTransformer.init_parameters`: residual branches scaled by (2·layers)^−½. */
function textBlockInit(width: number, layers: number): BlockInit {
  const projStd = width ** -0.5 * (2 * layers) ** -0.5;
  return {
    inProj: normal(width ** -0.5),
    outProj: normal(projStd),
    cFc: normal((2 * width) ** -0.5),
    cProj: normal(projStd),
  };
}

function layerNormSpecs(name: string, width: number): ParameterSpec[] {
  return [
    { name: `${name}.weight`, shape: [width], initial: constant(1) },
    { name: `${name}.bias`, shape: [width], initial: constant(0) },
  ];
}

function blockSpecs(prefix: string, width: number, hidden: number, init: BlockInit): ParameterSpec[] {
  return [
    ...layerNormSpecs(`${prefix}.ln_1`, width),
    { name: `${prefix}.attn.in_proj_weight`, shape: [3 * width, width], initial: init.inProj },
    { name: `${prefix}.attn.in_proj_bias`, shape: [3 * width], initial: constant(0) },
    { name: `${prefix}.attn.out_proj.weight`, shape: [width, width], initial: init.outProj },
    { name: `${prefix}.attn.out_proj.bias`, shape: [width], initial: constant(0) },
    ...layerNormSpecs(`${prefix}.ln_2`, width),
    { name: `${prefix}.mlp.c_fc.weight`, shape: [hidden, width], initial: init.cFc },
    { name: `${prefix}.mlp.c_fc.bias`, shape: [hidden], initial: frameworkDefault(width) },
    { name: `${prefix}.mlp.c_proj.weight`, shape: [width, hidden], initial: init.cProj },
    { name: `${prefix}.mlp.c_proj.bias`, shape: [width], initial: frameworkDefault(hidden) },
  ];
}

/** The image tower up to `ln_post`: a ViT that ends in its class token, [width]. */
export function backboneSpecs(vision: VisionConfig): ParameterSpec[] {
  const { width, layers, patchSize, imageSize, mlpRatio } = vision;
  const patches = (imageSize / patchSize) ** 2;
  const scaled = normal(width ** -0.5);
  const blocks = Array.from({ length: layers }, (_, i) =>
    blockSpecs(`visual.transformer.resblocks.${i}`, width, width * mlpRatio, imageBlockInit(width, width * mlpRatio)),
  );
  return [
    { name: 'visual.class_embedding', shape: [width], initial: scaled },
    { name: 'visual.positional_embedding', shape: [patches + 1, width], initial: scaled },
    {
      name: 'visual.conv1.weight',
      shape: [width, 3, patchSize, patchSize],
      initial: frameworkDefault(3 * patchSize * patchSize),
    },
    ...layerNormSpecs('visual.ln_pre', width),
    ...blocks.flat(),
    ...layerNormSpecs('visual.ln_post', width),
  ];
}

/** With the projection in open_clip's place: after the embeddings. */
function imageSpecs({ vision, embedDim }: ModelConfig): ParameterSpec[] {
  const [classEmbedding, positions, ...rest] = backboneSpecs(vision);
  const proj = { name: 'visual.proj', shape: [vision.width, embedDim], initial: normal(vision.width ** -0.5) };
  return [classEmbedding!, positions!, proj, ...rest];
}

function textSpecs({ text, embedDim }: ModelConfig): ParameterSpec[] {
  const { width, layers, contextLength, vocabSize, mlpRatio } = text;
  const blocks = Array.from({ length: layers }, (_, i) =>
    blockSpecs(`transformer.resblocks.${i}`, width, width * mlpRatio, textBlockInit(width, layers)),
  );
  return [
    { name: 'token_embedding.weight', shape: [vocabSize, width], initial: normal(0.02) },
    { name: 'positional_embedding', shape: [contextLength, width], initial: normal(0.01) },
    ...blocks.flat(),
    ...layerNormSpecs('ln_final', width),
    { name: 'text_projection', shape: [width, embedDim], initial: normal(width ** -0.5) },
  ];
}

/**
 * Every parameter of the model in its one stable order (that of gradients, checkpoints and digests), with open_clip's key, PyTorch's
 * shape and how it starts (open_clip `transformer.py`, PyTorch defaults). Allocates nothing.
 * @param logitScaleInit natural logarithm; CLIP's is ln(1/0.07)
 */
export function parameterSpecs(config: ModelConfig, logitScaleInit: number): ParameterSpec[] {
  return [
    ...imageSpecs(config),
    ...textSpecs(config),
    { name: 'logit_scale', shape: [], initial: constant(logitScaleInit) },
    ...(config.initLogitBias === undefined
      ? []
      : [{ name: 'logit_bias', shape: [], initial: constant(config.initLogitBias) }]),
  ];
}

/** Names and shapes only, for counting, checking files and planning memory. */
export function parameterShapes(config: ModelConfig): { name: string; shape: readonly number[] }[] {
  return parameterSpecs(config, 0).map(({ name, shape }) => ({ name, shape }));
}

/** Number of elements of a shape; 1 for a scalar. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}
