import { afterAll, beforeAll, expect, it } from 'vitest';
import { RandomStream } from '../../common/random.ts';
import { type Engine, loadEngine, tf } from '../../engine/index.ts';
import { applyRuleOnHost, gradientNormsOnHost, lambMomentsOnHost } from '../../engine/optim/host-rules.ts';
import { advancedMoments, applyRuleOnTensors, lambDirection, normOf } from '../../engine/optim/tensor-rules.ts';
import type { UpdateRule } from '../../engine/optim/update-rule.ts';

// What engines compose from tfjs ops where JavaScript cannot write to memory: no engine of this machine need be one of them.
let engine: Engine;
beforeAll(async () => {
  engine = await loadEngine({ engine: 'cpu', threads: 1 });
});
afterAll(() => engine.close());

const COUNT = 200;
const values = (name: string) => {
  const random = new RandomStream(5, name);
  return Float32Array.from({ length: COUNT }, () => random.normal());
};
const positive = (name: string) => values(name).map(Math.abs);

const own = { rates: [0.03], weightDecays: [0.1] };
const adam = { beta1: 0.9, beta2: 0.98, eps: 1e-6, step: 3 };
const RULES: readonly UpdateRule[] = [
  { kind: 'adamW', ...own, ...adam },
  { kind: 'momentum', ...own, momentum: 0.9, nesterov: false, trusts: [0.4] },
  { kind: 'momentum', ...own, momentum: 0.9, nesterov: true, trusts: [0.4] },
  { kind: 'lion', ...own, beta1: 0.9, beta2: 0.99 },
  { kind: 'lamb', ...own, ...adam, biasCorrection: true },
  { kind: 'lamb', ...own, ...adam, biasCorrection: false },
];

function expectClose(actual: ArrayLike<number>, expected: ArrayLike<number>): void {
  for (let i = 0; i < COUNT; i++) expect(Math.abs(actual[i]! - expected[i]!)).toBeLessThan(2e-6);
}

it.each(RULES)('as tfjs ops does what it does as a loop: $kind', (rule) => {
  const slice = {
    parameter: values('p'),
    slots: [values('m'), positive('v')],
    gradient: values('g'),
    gradientScale: 0.5,
  };
  tf.tidy(() => {
    const [parameter, m, v] = [slice.parameter, ...slice.slots].map((array) => tf.tensor1d(array.slice()));
    const g = tf.tensor1d(slice.gradient.map((x) => 0.5 * x));
    const updated = applyRuleOnTensors(rule, { parameter: parameter!, slots: [m!, v!], g }, 0);
    applyRuleOnHost(rule, slice, 0);
    expectClose(updated.parameter.dataSync(), slice.parameter);
    updated.slots.forEach((slot, at) => {
      expectClose(slot.dataSync(), slice.slots[at]!);
    });
    expect(updated.slots).toHaveLength({ adamW: 2, momentum: 1, lion: 1, lamb: 0 }[rule.kind]);
  });
});

it('has the norms of a loop', () => {
  const slice = {
    parameter: values('p'),
    slots: [values('m'), positive('v')],
    gradient: values('g'),
    gradientScale: 0.5,
  };
  tf.tidy(() => {
    const [parameter, m, v] = [slice.parameter, ...slice.slots].map((array) => tf.tensor1d(array.slice()));
    const g = tf.tensor1d(slice.gradient.map((x) => 0.5 * x));
    const { decayed } = gradientNormsOnHost(slice, 0.1);
    expect(normOf(tf.add(g, tf.mul(parameter!, 0.1)))).toBeCloseTo(decayed, 4);
    const constants = { ...adam, biasCorrection: true, weightDecays: [0.1] };
    const moments = advancedMoments(constants, { parameter: parameter!, slots: [m!, v!], g });
    const { update } = lambMomentsOnHost(constants, slice, 0);
    expectClose(moments[0].dataSync(), slice.slots[0]!);
    expectClose(moments[1].dataSync(), slice.slots[1]!);
    expect(normOf(lambDirection(constants, parameter!, moments, 0.1)) / update).toBeCloseTo(1, 5);
  });
});
