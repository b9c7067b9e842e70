import {
  constant,
  frameworkDefault,
  type Initial,
  normal,
  normSpecs,
  type ParameterSpec,
  xavier,
} from '../parameter-spec.ts';

/** The initial values of one residual block that differ between towers. */
export interface BlockInit {
  readonly inProj: Initial;
  readonly outProj: Initial;
  readonly cFc: Initial;
  readonly cProj: Initial;
  /** Of the two biases of the perceptron. */
  readonly mlpBias: readonly [Initial, Initial];
}

const ZERO = constant(0);

/** Image blocks keep PyTorch's defaults: xavier_uniform on the packed [3w, w] in_proj, kaiming on the linears. */
export function imageBlockInit(width: number, hidden: number): BlockInit {
  return {
    inProj: xavier(width, 3 * width),
    outProj: frameworkDefault(width),
    cFc: frameworkDefault(width),
    cProj: frameworkDefault(hidden),
    mlpBias: [frameworkDefault(width), frameworkDefault(hidden)],
  };
}

/**
 * MAE's and MoCo v3's: xavier_uniform everywhere, biases 0. MAE draws q, k and v as the one matrix they are packed in, MoCo v3 each as its
 * own (`models_mae.py:_init_weights`, `vits.py`).
 */
export function xavierBlockInit(width: number, hidden: number, qkv: 'packed' | 'apart'): BlockInit {
  return {
    inProj: xavier(width, qkv === 'packed' ? 3 * width : width),
    outProj: xavier(width, width),
    cFc: xavier(width, hidden),
    cProj: xavier(hidden, width),
    mlpBias: [ZERO, ZERO],
  };
}

/** Text blocks as open_clip's `TextTransformer.init_parameters`: residual branches scaled by (2·layers)^−½. */
export function textBlockInit(width: number, hidden: number, layers: number): BlockInit {
  const projStd = width ** -0.5 * (2 * layers) ** -0.5;
  return {
    inProj: normal(width ** -0.5),
    outProj: normal(projStd),
    cFc: normal((2 * width) ** -0.5),
    cProj: normal(projStd),
    mlpBias: [frameworkDefault(width), frameworkDefault(hidden)],
  };
}

export function blockSpecs(prefix: string, width: number, hidden: number, init: BlockInit): ParameterSpec[] {
  return [
    ...normSpecs(`${prefix}.ln_1`, width),
    { name: `${prefix}.attn.in_proj_weight`, shape: [3 * width, width], initial: init.inProj },
    { name: `${prefix}.attn.in_proj_bias`, shape: [3 * width], initial: ZERO },
    { name: `${prefix}.attn.out_proj.weight`, shape: [width, width], initial: init.outProj },
    { name: `${prefix}.attn.out_proj.bias`, shape: [width], initial: ZERO },
    ...normSpecs(`${prefix}.ln_2`, width),
    { name: `${prefix}.mlp.c_fc.weight`, shape: [hidden, width], initial: init.cFc },
    { name: `${prefix}.mlp.c_fc.bias`, shape: [hidden], initial: init.mlpBias[0] },
    { name: `${prefix}.mlp.c_proj.weight`, shape: [width, hidden], initial: init.cProj },
    { name: `${prefix}.mlp.c_proj.bias`, shape: [width], initial: init.mlpBias[1] },
  ];
}
