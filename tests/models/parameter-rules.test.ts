import { describe, expect, it } from 'vitest';
import { CoveyError } from '../../common/errors.ts';
import { parameterShapes } from '../../models/clip/parameter-shapes.ts';
import { resolveModelConfig } from '../../models/model-config.ts';
import { type ParameterRule, type ParameterRulesConfig, parameterRules } from '../../models/parameter-rules.ts';

const shapes = parameterShapes(
  resolveModelConfig({ preset: 'tiny', vision: { layers: 4 }, text: { width: 256, heads: 4, layers: 3 } }),
);
const optimizer = { weightDecay: 0.2, decayRule: 'v4' } as const;

function rulesOf(config: Omit<ParameterRulesConfig, 'optimizer'> = {}): ReadonlyMap<string, ParameterRule> {
  const rules = parameterRules(shapes, { optimizer, ...config });
  return new Map(shapes.map(({ name }, i) => [name, rules[i]!]));
}

function trained(config: Omit<ParameterRulesConfig, 'optimizer'>, tower: 'image' | 'text'): string[] {
  const isImage = (name: string) => name.startsWith('visual.');
  return [...rulesOf(config)]
    .filter(([name, rule]) => !rule.frozen && name !== 'logit_scale' && isImage(name) === (tower === 'image'))
    .map(([name]) => name);
}

const startingWith = (...prefixes: string[]) =>
  shapes.map(({ name }) => name).filter((name) => prefixes.some((prefix) => name.startsWith(prefix)));

function problemsOf(config: Omit<ParameterRulesConfig, 'optimizer'>): readonly { path: string; message: string }[] {
  try {
    rulesOf(config);
  } catch (thrown) {
    if (CoveyError.is(thrown, 'CONFIG_INVALID'))
      return thrown.fields['problems'] as { path: string; message: string }[];
    throw thrown;
  }
  return [];
}

describe('rules by parameter', () => {
  it('are the decay rule and nothing else unless asked for', () => {
    const rules = rulesOf();
    expect(rules.get('text_projection')).toEqual({ weightDecay: 0.2, lrScale: 1, frozen: false, adapted: true });
    expect(rules.get('ln_final.weight')).toEqual({ weightDecay: 0, lrScale: 1, frozen: false, adapted: false });
  });

  it('follow regular expressions, the later group over the earlier, field by field', () => {
    const rules = rulesOf({
      groups: [
        { match: '^visual\\.', lrScale: 0.1 },
        { match: 'ln_', weightDecay: 0.01, lrScale: 0.5 },
        { match: '^visual\\.conv1', frozen: true },
      ],
    });
    expect(rules.get('visual.proj')).toMatchObject({ lrScale: 0.1, weightDecay: 0.2, frozen: false });
    expect(rules.get('visual.ln_post.bias')).toMatchObject({ lrScale: 0.5, weightDecay: 0.01 });
    expect(rules.get('ln_final.bias')).toMatchObject({ lrScale: 0.5, weightDecay: 0.01 });
    expect(rules.get('visual.conv1.weight')).toMatchObject({ lrScale: 0.1, frozen: true });
    expect(rules.get('text_projection')).toMatchObject({ lrScale: 1, weightDecay: 0.2, frozen: false });
  });

  it('lower the learning rate by layer, from the head down to the embeddings, in each tower by its own depth', () => {
    const rules = rulesOf({ layerDecay: 0.5 });
    const scale = (name: string) => rules.get(name)!.lrScale;
    expect(scale('visual.proj')).toBe(1);
    expect(scale('visual.ln_post.weight')).toBe(1);
    expect(scale('visual.transformer.resblocks.3.ln_1.weight')).toBe(0.5);
    expect(scale('visual.transformer.resblocks.0.mlp.c_fc.weight')).toBe(0.5 ** 4);
    for (const name of ['conv1.weight', 'class_embedding', 'positional_embedding', 'ln_pre.bias'])
      expect(scale(`visual.${name}`), name).toBe(0.5 ** 5);
    expect(scale('transformer.resblocks.2.attn.in_proj_weight')).toBe(0.5);
    expect(scale('token_embedding.weight')).toBe(0.5 ** 4);
    expect(scale('logit_scale')).toBe(1);
    const image = rulesOf({ layerDecay: { image: 0.75 }, groups: [{ match: 'conv1', lrScale: 2 }] });
    expect(image.get('visual.conv1.weight')!.lrScale).toBe(2 * 0.75 ** 5);
    expect(image.get('token_embedding.weight')!.lrScale).toBe(1);
  });

  it('lock a tower as open_clip does: all of it, or all but its last groups', () => {
    expect(trained({ lock: { image: true } }, 'image')).toEqual([]);
    expect(trained({ lock: { image: true } }, 'text')).toEqual(trained({}, 'text'));
    const image = (unlockedGroups: number) => trained({ lock: { image: { unlockedGroups } } }, 'image');
    expect(image(0)).toEqual([]);
    expect(image(1)).toEqual(['visual.proj']);
    const last = ['visual.proj', 'visual.ln_post.', 'visual.transformer.resblocks.3.'];
    expect(image(2)).toEqual(startingWith(...last));
    expect(image(3)).toEqual(startingWith(...last, 'visual.transformer.resblocks.2.'));
    expect(image(6)).toEqual(startingWith('visual.'));
    expect(trained({ lock: { text: { unlockedGroups: 2 } } }, 'text')).toEqual(
      startingWith('transformer.resblocks.2.', 'ln_final.', 'text_projection'),
    );
  });

  it('let a group train again what a lock has frozen', () => {
    const config: Omit<ParameterRulesConfig, 'optimizer'> = {
      lock: { image: true },
      groups: [{ match: 'visual.*ln_', frozen: false }],
    };
    const names = trained(config, 'image');
    expect(names.length).toBeGreaterThan(0);
    expect(names.every((name) => name.includes('ln_'))).toBe(true);
  });

  it('are refused where they match nothing, do not fit the tower or leave nothing to train', () => {
    expect(
      problemsOf({ groups: [{ match: 'visaul', lrScale: 1 }], lock: { image: { unlockedGroups: 7 } } }),
    ).toMatchObject([
      { path: 'train.lock.image.unlockedGroups', message: 'the image tower has 6 groups, not 7' },
      { path: 'train.groups.0.match', message: '/visaul/ matches no parameter' },
    ]);
    expect(problemsOf({ groups: [{ match: '.', frozen: true }] })).toMatchObject([
      { path: 'train.lock', message: expect.stringContaining('nothing is left to train') },
    ]);
  });
});
