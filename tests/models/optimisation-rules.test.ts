import { describe, expect, it } from 'vitest';
import { initialValues } from '../../models/clip/initial-values.ts';
import { parameterShapes, parameterSpecs } from '../../models/clip/parameter-shapes.ts';
import { resolveModelConfig } from '../../models/model-config.ts';
import { parameterGroups } from '../../models/parameter-groups.ts';
import { learningRate } from '../../models/schedule.ts';

describe('learning rate', () => {
  const cosine = { lr: 1e-3, warmupSteps: 10, schedule: 'cosine' } as const;

  it('climbs to lr in warmupSteps, halves in the middle and ends near 0', () => {
    expect(learningRate(0, 110, cosine)).toBeCloseTo(1e-4, 12);
    expect(learningRate(9, 110, cosine)).toBeCloseTo(1e-3, 12);
    expect(learningRate(10, 110, cosine)).toBeCloseTo(1e-3, 12);
    expect(learningRate(60, 110, cosine)).toBeCloseTo(5e-4, 12);
    // 0.5·(1 + cos(π·25/100)) = 0.8535534
    expect(learningRate(35, 110, cosine)).toBeCloseTo(8.535534e-4, 9);
    expect(learningRate(109, 110, cosine)).toBeCloseTo(0.5 * (1 + Math.cos(0.99 * Math.PI)) * 1e-3, 12);
    expect(learningRate(110, 110, cosine)).toBeCloseTo(0, 12);
  });

  it('stays where it is when constant, and without warm-up starts at lr', () => {
    expect(learningRate(50, 110, { ...cosine, schedule: 'constant' })).toBe(1e-3);
    expect(learningRate(0, 110, { ...cosine, warmupSteps: 0 })).toBe(1e-3);
  });

  it('falls linearly to 0 after the warm-up', () => {
    const linear = { ...cosine, schedule: 'linear' } as const;
    expect(learningRate(4, 110, linear)).toBeCloseTo(5e-4, 12);
    expect(learningRate(10, 110, linear)).toBeCloseTo(1e-3, 12);
    expect(learningRate(85, 110, linear)).toBeCloseTo(2.5e-4, 12);
    expect(learningRate(110, 110, linear)).toBe(0);
  });

  it('falls with the root of the steps, and in the cooldown to 0', () => {
    const rsqrt = { ...cosine, schedule: 'rsqrt', timescaleSteps: 20, cooldownSteps: 30 } as const;
    expect(learningRate(9, 110, rsqrt)).toBeCloseTo(1e-3, 12);
    expect(learningRate(10, 110, rsqrt)).toBeCloseTo(1e-3, 12);
    // 1/√(1 + 60/20) = 1/2 at step 70; at step 95 1/√(1 + 85/20), of which the cooldown leaves 15/30.
    expect(learningRate(70, 110, rsqrt)).toBeCloseTo(5e-4, 12);
    expect(learningRate(95, 110, rsqrt)).toBeCloseTo(0.5 * 4.364358e-4, 9);
    // Without a timescale it is big_vision's: 10,000 steps.
    const plain = { ...cosine, schedule: 'rsqrt' } as const;
    expect(learningRate(30_010, 100_000, plain)).toBeCloseTo(5e-4, 12);
  });

  it('cools down from a constant rate as open_clip does, with its first step still whole', () => {
    const cooled = { ...cosine, schedule: 'constant', cooldownSteps: 20 } as const;
    expect(learningRate(50, 110, cooled)).toBe(1e-3);
    expect(learningRate(90, 110, cooled)).toBe(1e-3);
    expect(learningRate(91, 110, cooled)).toBeCloseTo(0.95e-3, 12);
    expect(learningRate(109, 110, cooled)).toBeCloseTo(0.05e-3, 12);
    expect(learningRate(110, 110, cooled)).toBe(0);
  });

  it('is multiplied at each milestone', () => {
    const stepped = { ...cosine, schedule: 'step' } as const;
    expect(learningRate(59, 110, { ...stepped, milestones: [60, 80] })).toBe(1e-3);
    expect(learningRate(60, 110, { ...stepped, milestones: [60, 80] })).toBeCloseTo(1e-4, 12);
    expect(learningRate(80, 110, { ...stepped, milestones: [60, 80] })).toBeCloseTo(1e-5, 12);
    expect(learningRate(80, 110, { ...stepped, milestones: [60, 80], milestoneFactor: 0.5 })).toBeCloseTo(2.5e-4, 12);
  });

  it('is finite when the run is no longer than the warm-up', () => {
    expect(learningRate(10, 10, cosine)).toBeGreaterThanOrEqual(0);
    expect(learningRate(12, 10, cosine)).toBeGreaterThanOrEqual(0);
  });
});

describe('weight decay', () => {
  const shapes = parameterShapes(resolveModelConfig('tiny'));
  const decayed = (rule: 'v4' | 'legacy') => {
    const flags = parameterGroups(shapes, rule);
    return new Map(shapes.map(({ name }, i) => [name, flags[i]!]));
  };

  it('of v4 spares gains, biases, the scale, and class and positional embeddings', () => {
    const v4 = decayed('v4');
    const spared = [
      'logit_scale',
      'visual.class_embedding',
      'visual.positional_embedding',
      'positional_embedding',
      'ln_final.weight',
    ];
    for (const name of spared) expect(v4.get(name), name).toBe(false);
    for (const name of ['token_embedding.weight', 'text_projection', 'visual.proj', 'visual.conv1.weight']) {
      expect(v4.get(name), name).toBe(true);
    }
    expect(v4.get('visual.transformer.resblocks.0.attn.in_proj_weight')).toBe(true);
    expect(v4.get('visual.transformer.resblocks.0.attn.in_proj_bias')).toBe(false);
  });

  it('of the legacy rule also decays the 2-D positional embeddings, and nothing else differs', () => {
    const [v4, legacy] = [decayed('v4'), decayed('legacy')];
    const differing = [...v4.keys()].filter((name) => v4.get(name) !== legacy.get(name));
    expect(differing.sort()).toEqual(['positional_embedding', 'visual.positional_embedding']);
  });
});

describe('initial weights', () => {
  const config = resolveModelConfig({ preset: 'tiny', text: { width: 256, heads: 4, layers: 3 } });
  const specs = new Map(parameterSpecs(config, Math.log(1 / 0.07)).map((spec) => [spec.name, spec]));
  const moments = (name: string) => {
    const values = initialValues(specs.get(name)!, 7);
    const mean = values.reduce((a, b) => a + b, 0) / values.length;
    const std = Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / values.length);
    const largest = values.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
    return { mean, std, largest, n: values.length };
  };

  // std of normals, from open_clip's init_parameters, with text width 256, 3 layers and image width 192.
  const text = 'transformer.resblocks.1';
  it.each([
    ['token_embedding.weight', 0.02],
    ['positional_embedding', 0.01],
    [`${text}.attn.in_proj_weight`, 0.0625],
    [`${text}.attn.out_proj.weight`, 0.0625 / Math.sqrt(6)],
    [`${text}.mlp.c_fc.weight`, 1 / Math.sqrt(512)],
    [`${text}.mlp.c_proj.weight`, 0.0625 / Math.sqrt(6)],
    ['text_projection', 0.0625],
    ['visual.class_embedding', 1 / Math.sqrt(192)],
    ['visual.positional_embedding', 1 / Math.sqrt(192)],
    ['visual.proj', 1 / Math.sqrt(192)],
  ])('%s is normal with std %f', (name, std) => {
    const seen = moments(name);
    // Four standard errors of the estimates.
    expect(Math.abs(seen.std / std - 1)).toBeLessThan(4 / Math.sqrt(2 * seen.n));
    expect(Math.abs(seen.mean)).toBeLessThan((4 * std) / Math.sqrt(seen.n));
    expect(seen.largest).toBeGreaterThan(2 * std);
  });

  const image = 'visual.transformer.resblocks.2';
  it.each([
    [`${image}.attn.in_proj_weight`, Math.sqrt(6 / (4 * 192))],
    [`${image}.attn.out_proj.weight`, 1 / Math.sqrt(192)],
    [`${image}.mlp.c_fc.weight`, 1 / Math.sqrt(192)],
    [`${image}.mlp.c_fc.bias`, 1 / Math.sqrt(192)],
    [`${image}.mlp.c_proj.weight`, 1 / Math.sqrt(768)],
    [`${image}.mlp.c_proj.bias`, 1 / Math.sqrt(768)],
    [`${text}.mlp.c_fc.bias`, 1 / Math.sqrt(256)],
    ['visual.conv1.weight', 1 / Math.sqrt(432)],
  ])('%s is uniform within ±%f', (name, bound) => {
    const seen = moments(name);
    expect(seen.largest).toBeLessThanOrEqual(Math.fround(bound));
    expect(seen.largest).toBeGreaterThan(0.95 * bound);
    expect(Math.abs(seen.std / (bound / Math.sqrt(3)) - 1)).toBeLessThan(4 / Math.sqrt(2 * seen.n));
  });

  it('are 1 and 0 in layer norms, 0 in attention biases, and ln(1/0.07) in the scale', () => {
    expect(initialValues(specs.get('ln_final.weight')!, 7).every((v) => v === 1)).toBe(true);
    for (const name of ['ln_final.bias', `${image}.attn.in_proj_bias`, `${text}.attn.out_proj.bias`]) {
      expect(initialValues(specs.get(name)!, 7).every((v) => v === 0)).toBe(true);
    }
    expect(initialValues(specs.get('logit_scale')!, 7)[0]).toBeCloseTo(2.6593, 4);
  });

  it('depend on seed and name only', () => {
    const spec = specs.get('text_projection')!;
    expect(initialValues(spec, 7)).toEqual(initialValues(spec, 7));
    expect(initialValues(spec, 8)).not.toEqual(initialValues(spec, 7));
    expect(initialValues({ ...spec, name: 'other' }, 7)).not.toEqual(initialValues(spec, 7));
  });
});
