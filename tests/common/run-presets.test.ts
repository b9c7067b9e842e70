import { describe, expect, it } from 'vitest';
import { loadRunConfig } from '../../common/config/load-run-config.ts';
import { readRunPreset, runPresetNames, underlay } from '../../common/config/run-presets.ts';
import { resolveModelConfig } from '../../models/model-config.ts';
import { checkTowerFor } from '../../worker/objectives/check-tower.ts';
import { weakViews } from '../../worker/objectives/check-views.ts';
import { checkModelFor } from '../../worker/objectives/objective-inputs.ts';
import { parameterSpecsFor } from '../../worker/objectives/trained-parameters.ts';
import { checkParameterRules } from '../../worker/train/check-parameters.ts';

const OWN = 'run: r\nstore: file:///s\ndata: { manifest: file:///d/manifest.json }\n';
const load = (text: string, sets: readonly string[] = []) => loadRunConfig({ text, sets });
const names = runPresetNames();

describe('every published recipe', () => {
  it.each(names)('%s is a whole config with only run, store and data added', async (name) => {
    const { config } = await load(`preset: ${name}\n${OWN}`);
    const model = resolveModelConfig(config.model);
    checkModelFor(config, model);
    checkParameterRules(config);
    checkTowerFor(config, model);
    expect(parameterSpecsFor(config, model).length).toBeGreaterThan(10);
    expect(config.data.augment.recipe).toBeDefined();
    expect(weakViews(config)).toBeUndefined();
    const { about } = readRunPreset(name);
    for (const text of [about.title, about.source, about.data, about.figures]) expect(text.length).toBeGreaterThan(10);
    // What is stored says everything: reading it again, with or without the preset, changes nothing.
    expect((await load(JSON.stringify(config))).config).toEqual(config);
    const { preset: _, ...rest } = config;
    expect((await load(JSON.stringify(rest))).config).toEqual(rest);
  });

  it('has a small variant, which a CPU trains', async () => {
    const full = names.filter((name) => !name.endsWith('-tiny'));
    expect(full).toEqual(
      expect.arrayContaining([
        'clip-rn50',
        'clip-vit-b-32',
        'siglip-vit-b-16',
        'simclr-rn50',
        'moco-v2-rn50',
        'moco-v3-vit-b-16',
        'mae-vit-b-16',
        'finetune-mae-vit-b-16',
      ]),
    );
    for (const name of full) {
      expect(names).toContain(`${name}-tiny`);
      const { config } = await load(`preset: ${name}-tiny\n${OWN}`);
      expect(config.train.globalBatch).toBeLessThanOrEqual(256);
      expect(config.objective).toBe((await load(`preset: ${name}\n${OWN}`)).config.objective);
    }
  });
});

describe('preset of run.yaml', () => {
  it('is overridden key by key, from the file and from --set, and says where values come from', async () => {
    const text = `preset: simclr-rn50\n${OWN}train: { globalBatch: 512, optimizer: { lr: 0.6 } }\nmodel: { vision: { imageSize: 96 } }\n`;
    const { config, origins } = await load(text, ['train.steps=100', 'train.optimizer.warmupSteps=10']);
    expect(config.train).toMatchObject({ globalBatch: 512, lanes: 32, steps: 100 });
    expect(config.train.optimizer).toMatchObject({ name: 'lars', variant: 'simclr', lr: 0.6, warmupSteps: 10 });
    expect(config.model).toEqual({ preset: 'resnet50', vision: { imageSize: 96 } });
    expect(config.data.augment).toMatchObject({ recipe: 'simclr', scale: [0.08, 1] });
    expect(origins['train.lanes']).toEqual({ source: 'preset', name: 'simclr-rn50' });
    expect(origins['train.globalBatch']).toMatchObject({ source: 'file' });
    expect(origins['train.steps']).toMatchObject({ source: 'set' });
    expect(origins['timing.leaseSeconds']).toEqual({ source: 'default' });
  });

  it('can be chosen by --set, and a null takes the preset’s value again', async () => {
    const { config } = await load(`${OWN}train: { steps: 5 }\n`, ['preset=clip-vit-b-32-tiny', 'train.steps=null']);
    expect(config.train.steps).toBe(readRunPreset('clip-vit-b-32-tiny').config['train'] && 1000);
  });

  it('that is unknown is refused with the nearest and the list, in its place', async () => {
    await expect(load(`${OWN}preset: simclr-rn5\n`)).rejects.toThrow(
      /config:4:1: preset: unknown; did you mean simclr-rn50\?; there are .*clip-rn50.*siglip-vit-b-16/,
    );
    await expect(load(`${OWN}preset: ../../package\n`)).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    await expect(load(`${OWN}preset: 7\n`)).rejects.toThrow(/preset/);
  });

  it('merges sections and replaces the rest', () => {
    expect(underlay({ a: { b: 1, c: [1, 2] }, model: 'x' }, { a: { c: [3] }, model: { embedDim: 2 } })).toEqual({
      a: { b: 1, c: [3] },
      model: { preset: 'x', embedDim: 2 },
    });
    expect(underlay({ model: { preset: 'x', embedDim: 2 } }, { model: 'y' })).toEqual({ model: 'y' });
  });
});

describe.each(['', '-tiny'])('finetune-mae-vit-b-16%s', (size) => {
  it('has the image tower and the pictures of the recipe that it begins with', async () => {
    const [tuned, pretrained] = await Promise.all(
      [`finetune-mae-vit-b-16${size}`, `mae-vit-b-16${size}`].map(async (name) => load(`preset: ${name}\n${OWN}`)),
    );
    expect(resolveModelConfig(tuned!.config.model)).toEqual(resolveModelConfig(pretrained!.config.model));
    const { mean, std } = pretrained!.config.data;
    expect(tuned!.config.data).toMatchObject({ mean, std });
  });
});

describe('weakViews', () => {
  it('warns of a two-view objective under the defaults, which are CLIP’s', async () => {
    const minimal = `${OWN}model: tiny\ntrain: { steps: 1, globalBatch: 8, lanes: 2 }\n`;
    const { config } = await load(minimal, ['objective=simclr']);
    expect(weakViews(config)).toMatch(/nearly alike \(no recipe, crops of 0.9 to 1/);
    expect(weakViews((await load(minimal)).config)).toBeUndefined();
    expect(weakViews((await load(minimal, ['objective=simclr', 'data.augment.recipe=clip'])).config)).toMatch(
      /recipe clip/,
    );
    expect(weakViews((await load(minimal, ['objective=simclr', 'data.augment.scale=[0.2,1]'])).config)).toBeUndefined();
  });
});
