/** How a parameter starts. `normal`: N(0, std²). `uniform`: U(−bound, bound). `fixed`: values that a formula gives. */
export type Initial =
  | { readonly kind: 'normal'; readonly std: number }
  | { readonly kind: 'uniform'; readonly bound: number }
  | { readonly kind: 'constant'; readonly value: number }
  | { readonly kind: 'fixed'; readonly values: () => Float32Array };

export interface ParameterSpec {
  /** State-dict key: open_clip's where it has one. */
  readonly name: string;
  /** PyTorch's layout: linear weights are [out, in]. */
  readonly shape: readonly number[];
  readonly initial: Initial;
}

export const normal = (std: number): Initial => ({ kind: 'normal', std });
export const uniform = (bound: number): Initial => ({ kind: 'uniform', bound });
export const constant = (value: number): Initial => ({ kind: 'constant', value });

/** kaiming_uniform(a=√5) of PyTorch's Linear and Conv, weight and bias alike: U(±1/√fanIn). */
export const frameworkDefault = (fanIn: number): Initial => uniform(1 / Math.sqrt(fanIn));

/** xavier_uniform (Glorot & Bengio 2010). */
export const xavier = (fanIn: number, fanOut: number): Initial => uniform(Math.sqrt(6 / (fanIn + fanOut)));

/** PyTorch's Linear. */
export function linearSpecs(name: string, inputs: number, outputs: number, bias = true): ParameterSpec[] {
  const initial = frameworkDefault(inputs);
  const weight = { name: `${name}.weight`, shape: [outputs, inputs], initial };
  return bias ? [weight, { name: `${name}.bias`, shape: [outputs], initial }] : [weight];
}

/** Gain and shift of a normalisation. */
export function normSpecs(name: string, width: number, gain = 1): ParameterSpec[] {
  return [
    { name: `${name}.weight`, shape: [width], initial: constant(gain) },
    { name: `${name}.bias`, shape: [width], initial: constant(0) },
  ];
}

/** Running mean and variance of a batch normalisation. (`num_batches_tracked` is not kept: nothing reads it.) */
export function runningSpecs(name: string, width: number): ParameterSpec[] {
  return [
    { name: `${name}.running_mean`, shape: [width], initial: constant(0) },
    { name: `${name}.running_var`, shape: [width], initial: constant(1) },
  ];
}

/** Number of elements of a shape; 1 for a scalar. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}
