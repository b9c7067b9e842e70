import { mkdir, readdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { prepareDataset, splitSets } from '../../cli/demo/dataset.ts';
import { tidyOldRuns } from '../../cli/demo/old-runs.ts';
import {
  DEMO_MODEL,
  DEMO_MODEL_WITHOUT_ADDON,
  demoRunConfig,
  ICON_SETS,
  lanesFor,
  RENDER_SIDE,
  WORKERS_MAX,
} from '../../cli/demo/recipe.ts';
import { systemClock } from '../../common/clock.ts';
import { silentLogger } from '../../common/log.ts';
import { resolveModelConfig } from '../../models/model-config.ts';
import { iconSetSamples } from '../../worker/data/pack/icon-source.ts';
import { temporaryFolder } from '../support/datasets.ts';

const samples = iconSetSamples(ICON_SETS, { side: RENDER_SIDE });

describe('splitSets', () => {
  for (const heldOut of ICON_SETS) {
    it(`keeps every drawing of ${heldOut} out of training and judges only by names that were trained`, () => {
      const { train, test } = splitSets(samples, heldOut);
      expect(train.some(({ set }) => set === heldOut)).toBe(false);
      expect(test.every(({ set }) => set === heldOut)).toBe(true);
      const names = new Set(train.map(({ name }) => name));
      expect(test.every(({ name }) => names.has(name))).toBe(true);
      // One picture per name, so the names are the classes.
      expect(new Set(test.map(({ caption }) => caption)).size).toBe(test.length);
      expect(test.length).toBeGreaterThan(800);
    });
  }

  it('finds about 1,560 classes with the default hold-out', () => {
    expect(splitSets(samples, 'fluent-emoji-flat').test).toHaveLength(1564);
  });
});

describe('prepareDataset', () => {
  it('refuses an icon set it does not know, naming those it does', async () => {
    const folder = await temporaryFolder();
    const modules = {
      logger: silentLogger,
      clock: systemClock,
      signal: new AbortController().signal,
      onProgress: () => undefined,
    };
    try {
      const refused = prepareDataset({ workDir: folder.path, heldOut: 'clip-art' }, modules);
      await expect(refused).rejects.toMatchObject({
        code: 'INVALID_ARGUMENT',
        message: expect.stringContaining('twemoji'),
      });
    } finally {
      await folder.remove();
    }
  });
});

describe('tidyOldRuns', () => {
  it('takes away the checkpoints of old finished demos only', async () => {
    const folder = await temporaryFolder();
    const make = async (name: string, finished: boolean) => {
      await mkdir(path.join(folder.path, name, 'store'), { recursive: true });
      if (finished) await writeFile(path.join(folder.path, name, 'summary.json'), '{}');
    };
    try {
      await make('demo-20260101-000000', true);
      await make('demo-20260102-000000', false);
      await make('demo-20260103-000000', true);
      await make('demo-20260104-000000', true);
      await make('my-demo', true);
      expect(await tidyOldRuns(folder.path, 2)).toEqual([path.join(folder.path, 'demo-20260101-000000', 'store')]);
      expect(await readdir(path.join(folder.path, 'demo-20260101-000000'))).toEqual(['summary.json']);
      expect(await readdir(path.join(folder.path, 'my-demo'))).toContain('store');
    } finally {
      await folder.remove();
    }
  });
});

describe('demoRunConfig', () => {
  const options = {
    run: 'demo-test',
    seed: 0,
    steps: 400,
    workers: 2,
    store: 'file:///tmp/store',
    manifest: 'file:///tmp/data/manifest.json',
    tokenizer: 'file:///tmp/data/tokenizer.json',
    vocabSize: 3000,
    cacheDir: '/tmp/cache',
  };

  it('is a valid config with a buildable model for either engine', () => {
    for (const engine of ['torch', 'wasm'] as const) {
      const config = demoRunConfig({ ...options, engine });
      const model = resolveModelConfig(config.model);
      const expected = engine === 'torch' ? DEMO_MODEL : DEMO_MODEL_WITHOUT_ADDON;
      expect(model).toEqual({ ...expected, text: { ...expected.text, vocabSize: 3000 } });
      expect(config.train.optimizer.warmupSteps).toBeLessThan(options.steps);
    }
  });

  it('has lanes for every number of workers it allows', () => {
    for (let workers = 1; workers <= WORKERS_MAX; workers++) {
      expect(lanesFor(workers)).toBeGreaterThanOrEqual(workers);
      expect(() => demoRunConfig({ ...options, workers, engine: 'wasm' })).not.toThrow();
      expect(() => demoRunConfig({ ...options, workers, engine: 'torch' })).not.toThrow();
    }
  });
});
