import { describe, expect, it } from 'vitest';
import { loadRunConfig } from '../../common/config/load-run-config.ts';
import type { ConfigProblem } from '../../common/config/problems.ts';
import { CoveyError } from '../../common/errors.ts';

const text = (train: string) => `run: first
store: file:///store
model: tiny
data: { manifest: file:///manifest.json }
train: { steps: 100, globalBatch: 8, lanes: 2${train === '' ? '' : `, ${train}`} }
`;
const optimizer = (keys: string) => text(`optimizer: { ${keys} }`);

async function problemsOf(yaml: string): Promise<readonly [string, string][]> {
  try {
    await loadRunConfig({ text: yaml });
  } catch (thrown) {
    if (!CoveyError.is(thrown, 'CONFIG_INVALID')) throw thrown;
    return (thrown.fields['problems'] as ConfigProblem[]).map(({ path, message }) => [path, message]);
  }
  return [];
}

describe('the optimiser’s configuration', () => {
  it.each([
    ['name: sgd, momentum: 0.9, nesterov: true'],
    ['name: lars, variant: moco-v3, trustCoefficient: 0.01'],
    ['name: lamb, biasCorrection: false, schedule: linear'],
    ['name: lion, beta2: 0.99, schedule: rsqrt, timescaleSteps: 50, cooldownSteps: 20'],
    ['schedule: constant, cooldownSteps: 100'],
    ['schedule: step, milestones: [30, 60], milestoneFactor: 0.5'],
  ])('takes %s', async (keys) => {
    expect(await problemsOf(optimizer(keys))).toEqual([]);
  });

  it.each([
    ['name: adam', 'name', 'adamw'],
    ['name: lars', 'name', 'needs train.optimizer.variant'],
    ['variant: simclr', 'variant', 'is for lars; adamw has no use for it'],
    ['name: lion, momentum: 0.9', 'momentum', 'is for sgd and lars; lion has no use for it'],
    ['name: sgd, biasCorrection: true', 'biasCorrection', 'is for lamb'],
    ['name: sgd, momentum: 0, nesterov: true', 'nesterov', 'needs a momentum above 0'],
    ['beta2: 1', 'beta2', 'must be below 1'],
    ['cooldownSteps: 5', 'cooldownSteps', 'is for constant and rsqrt; schedule cosine has no use for it'],
    ['schedule: step', 'schedule', 'needs train.optimizer.milestones'],
    ['schedule: step, milestones: [60, 30]', 'milestones', 'must rise'],
    ['schedule: step, milestones: [30, 101]', 'milestones', 'must lie within train.steps (100), reaches 101'],
    ['schedule: constant, cooldownSteps: 101', 'cooldownSteps', 'must lie within train.steps (100)'],
  ])('refuses %s', async (keys, key, message) => {
    expect(await problemsOf(optimizer(keys))).toEqual([[`train.optimizer.${key}`, expect.stringContaining(message)]]);
  });

  it.each([
    ['ema: { decay: 1 }', 'train.ema.decay', ''],
    ['ema: { decay: 0.9, everySteps: 0 }', 'train.ema.everySteps', ''],
    ['groups: [{ match: "(", frozen: true }]', 'train.groups.0.match', 'must be a regular expression'],
    ['groups: [{ match: visual }]', 'train.groups.0', 'must set lrScale, weightDecay or frozen'],
    ['groups: [{ match: visual, lrscale: 1 }]', 'train.groups.0.lrscale', 'did you mean lrScale?'],
    ['layerDecay: 1.5', 'train.layerDecay', ''],
    ['lock: { images: true }', 'train.lock.images', 'did you mean image?'],
    ['lock: { image: { unlockedGroups: -1 } }', 'train.lock.image.unlockedGroups', ''],
  ])('refuses %s', async (keys, path, message) => {
    expect(await problemsOf(text(keys))).toContainEqual([path, expect.stringContaining(message)]);
  });

  it('adds nothing to the config of a run that says nothing of it: its part of the hash stays', async () => {
    const { config } = await loadRunConfig({ text: text('') });
    expect(config.train.optimizer).toEqual({
      lr: 5e-4,
      beta1: 0.9,
      beta2: 0.98,
      eps: 1e-6,
      weightDecay: 0.2,
      decayRule: 'v4',
      warmupSteps: 10_000,
      schedule: 'cosine',
    });
    for (const key of ['groups', 'layerDecay', 'lock', 'ema']) expect(config.train).not.toHaveProperty(key);
  });
});
