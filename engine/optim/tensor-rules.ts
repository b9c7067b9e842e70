import { add, div, mul, sign, sqrt, square, sub, sum, type Tensor } from '../tf.ts';
import { biasCorrections, type LambMoments, type UpdateRule } from './update-rule.ts';

/** One parameter, its slots and its scaled gradient g, all of one shape. */
export interface TensorSlice {
  readonly parameter: Tensor;
  readonly slots: readonly Tensor[];
  readonly g: Tensor;
}

/** What takes the place of a parameter and of its slots; a slot that stays is left out. */
export interface Updated {
  readonly parameter: Tensor;
  readonly slots: readonly Tensor[];
}

/** A rule of `update-rule.ts` as tfjs ops, for engines whose memory JavaScript cannot write. Call it in a `tidy`. */
export function applyRuleOnTensors(rule: UpdateRule, slice: TensorSlice, index: number): Updated {
  const { parameter, slots, g } = slice;
  const rate = rule.rates[index]!;
  const weightDecay = rule.weightDecays[index]!;
  switch (rule.kind) {
    case 'adamW': {
      const [m, v] = advancedMoments(rule, slice);
      const secondCorrection = 1 / Math.sqrt(1 - rule.beta2 ** rule.step);
      const stepSize = rate / (1 - rule.beta1 ** rule.step);
      const change = div(mul(m, stepSize), add(mul(sqrt(v), secondCorrection), rule.eps));
      return { parameter: sub(mul(parameter, 1 - rate * weightDecay), change), slots: [m, v] };
    }
    case 'momentum': {
      const d = mul(add(g, mul(parameter, weightDecay)), rule.trusts[index]!);
      const m = add(mul(slots[0]!, rule.momentum), d);
      const change = rule.nesterov ? add(d, mul(m, rule.momentum)) : m;
      return { parameter: sub(parameter, mul(change, rate)), slots: [m] };
    }
    case 'lion': {
      const c = mix(slots[0]!, g, rule.beta1);
      const moved = sub(mul(parameter, 1 - rate * weightDecay), mul(sign(c), rate));
      return { parameter: moved, slots: [mix(slots[0]!, g, rule.beta2)] };
    }
    case 'lamb': {
      const [m, v] = slots as [Tensor, Tensor];
      return { parameter: sub(parameter, mul(lambDirection(rule, parameter, [m, v], weightDecay), rate)), slots: [] };
    }
  }
}

/** Adam's m and v after this gradient. */
export function advancedMoments(
  { beta1, beta2 }: { readonly beta1: number; readonly beta2: number },
  { slots, g }: TensorSlice,
): [Tensor, Tensor] {
  return [mix(slots[0]!, g, beta1), mix(slots[1]!, square(g), beta2)];
}

/** LAMB's u = r + λp. */
export function lambDirection(
  constants: LambMoments,
  parameter: Tensor,
  [m, v]: readonly [Tensor, Tensor],
  weightDecay: number,
): Tensor {
  const correction = biasCorrections(constants);
  const r = div(mul(m, correction.first), add(mul(sqrt(v), correction.second), constants.eps));
  return add(r, mul(parameter, weightDecay));
}

export function normOf(tensor: Tensor): number {
  return Math.sqrt(sum(square(tensor)).dataSync()[0]!);
}

function mix(average: Tensor, value: Tensor, beta: number): Tensor {
  return add(mul(average, beta), mul(value, 1 - beta));
}
