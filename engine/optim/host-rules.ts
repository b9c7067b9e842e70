import {
  biasCorrections,
  type GradientNorms,
  type LambMoments,
  type LambNorms,
  type UpdateRule,
} from './update-rule.ts';

/** One parameter's memory. */
export interface HostSlice {
  readonly parameter: Float32Array;
  readonly slots: readonly Float32Array[];
  /** Its part of the gradient sums. */
  readonly gradient: Float32Array;
  readonly gradientScale: number;
}

/** Applies a rule of `update-rule.ts` to the parameter at `index`, in place. */
export function applyRuleOnHost(rule: UpdateRule, slice: HostSlice, index: number): void {
  const rate = rule.rates[index]!;
  const weightDecay = rule.weightDecays[index]!;
  switch (rule.kind) {
    case 'adamW':
      adamW(slice, { ...rule, rate, weightDecay });
      break;
    case 'momentum':
      momentum(slice, { ...rule, rate, weightDecay, trust: rule.trusts[index]! });
      break;
    case 'lion':
      lion(slice, { ...rule, rate, weightDecay });
      break;
    case 'lamb': {
      const { parameter } = slice;
      const direction = lambDirection(slice, rule, weightDecay);
      for (let i = 0; i < parameter.length; i++) parameter[i]! -= rate * direction(i);
    }
  }
}

interface Own {
  readonly rate: number;
  readonly weightDecay: number;
}

function adamW(
  { parameter, slots, gradient, gradientScale }: HostSlice,
  { beta1, beta2, eps, step, rate, weightDecay }: Extract<UpdateRule, { kind: 'adamW' }> & Own,
): void {
  const [first, second] = slots as [Float32Array, Float32Array];
  const secondCorrection = 1 / Math.sqrt(1 - beta2 ** step);
  const decay = 1 - rate * weightDecay;
  const stepSize = rate / (1 - beta1 ** step);
  for (let i = 0; i < parameter.length; i++) {
    const g = gradient[i]! * gradientScale;
    first[i] = beta1 * first[i]! + (1 - beta1) * g;
    second[i] = beta2 * second[i]! + (1 - beta2) * g * g;
    parameter[i] = parameter[i]! * decay - (stepSize * first[i]!) / (Math.sqrt(second[i]!) * secondCorrection + eps);
  }
}

function momentum(
  { parameter, slots, gradient, gradientScale }: HostSlice,
  rule: Extract<UpdateRule, { kind: 'momentum' }> & Own & { readonly trust: number },
): void {
  const [moment] = slots as [Float32Array];
  const { momentum: factor, nesterov, trust, rate, weightDecay } = rule;
  for (let i = 0; i < parameter.length; i++) {
    const d = (gradient[i]! * gradientScale + weightDecay * parameter[i]!) * trust;
    moment[i] = factor * moment[i]! + d;
    parameter[i]! -= rate * (nesterov ? d + factor * moment[i]! : moment[i]!);
  }
}

function lion(
  { parameter, slots, gradient, gradientScale }: HostSlice,
  { beta1, beta2, rate, weightDecay }: Extract<UpdateRule, { kind: 'lion' }> & Own,
): void {
  const [moment] = slots as [Float32Array];
  const decay = 1 - rate * weightDecay;
  for (let i = 0; i < parameter.length; i++) {
    const g = gradient[i]! * gradientScale;
    parameter[i] = parameter[i]! * decay - rate * Math.sign(beta1 * moment[i]! + (1 - beta1) * g);
    moment[i] = beta2 * moment[i]! + (1 - beta2) * g;
  }
}

function lambDirection({ parameter, slots }: HostSlice, constants: LambMoments, weightDecay: number) {
  const [first, second] = slots as [Float32Array, Float32Array];
  const correction = biasCorrections(constants);
  return (i: number): number =>
    (first[i]! * correction.first) / (Math.sqrt(second[i]!) * correction.second + constants.eps) +
    weightDecay * parameter[i]!;
}

function norm(length: number, value: (i: number) => number): number {
  let sum = 0;
  for (let i = 0; i < length; i++) sum += value(i) ** 2;
  return Math.sqrt(sum);
}

export function gradientNormsOnHost(
  { parameter, gradient, gradientScale }: HostSlice,
  weightDecay: number,
): GradientNorms {
  const g = (i: number) => gradient[i]! * gradientScale;
  return {
    parameter: norm(parameter.length, (i) => parameter[i]!),
    gradient: norm(parameter.length, g),
    decayed: norm(parameter.length, (i) => g(i) + weightDecay * parameter[i]!),
  };
}

/** Advances LAMB's moments of the parameter at `index`. */
export function lambMomentsOnHost(constants: LambMoments, slice: HostSlice, index: number): LambNorms {
  const { parameter, slots, gradient, gradientScale } = slice;
  const [first, second] = slots as [Float32Array, Float32Array];
  const { beta1, beta2 } = constants;
  for (let i = 0; i < parameter.length; i++) {
    const g = gradient[i]! * gradientScale;
    first[i] = beta1 * first[i]! + (1 - beta1) * g;
    second[i] = beta2 * second[i]! + (1 - beta2) * g * g;
  }
  return {
    parameter: norm(parameter.length, (i) => parameter[i]!),
    update: norm(parameter.length, lambDirection(slice, constants, constants.weightDecays[index]!)),
  };
}
