import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunConfig, runConfigSchema } from '../../common/config/run-config.ts';
import { openObjectStore } from '../../common/objectstore/open.ts';
import { type Engine, loadEngine } from '../../engine/index.ts';
import { exportHf } from '../../models/formats/hugging-face.ts';
import { exportOpenClip } from '../../models/formats/open-clip.ts';
import { backboneOf, type PretrainedClip } from '../../models/formats/pretrained.ts';
import { resolveModelConfig } from '../../models/model-config.ts';
import { readAll } from '../../models/named-variables.ts';
import { trainBpe } from '../../models/tokenizer/bpe-trainer.ts';
import { loadTokenizer } from '../../models/tokenizer/tokenizer.ts';
import { backboneSpecs } from '../../models/vision/backbone.ts';
import { loadInitialWeights, unlikePreprocess } from '../../worker/train/initial-weights.ts';
import { newTrainer } from '../../worker/train/new-trainer.ts';
import { madeUpCaptions, smallConfig, smallWeights } from '../models/small-model.ts';

let dir: string;
let engine: Engine;
const weights = smallWeights();

beforeAll(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'covey-initial-'));
  engine = await loadEngine({ engine: 'auto', threads: 1 });
  const tokenizer = await loadTokenizer(
    trainBpe(madeUpCaptions(200), { vocabSize: 600 }),
    smallConfig.text.contextLength,
  );
  const preprocess = { mean: [0.5, 0.4, 0.3], std: [0.2, 0.25, 0.3] } as const;
  const model: PretrainedClip = { kind: 'clip', config: smallConfig, weights, preprocess, tokenizer };
  await exportHf(path.join(dir, 'hf'), model);
  await exportOpenClip(path.join(dir, 'tower'), backboneOf(model));
});
afterAll(async () => {
  engine.close();
  await rm(dir, { recursive: true, force: true });
});

const url = (name: string) => pathToFileURL(path.join(dir, name)).href;
const openStore = async (of: string) => openObjectStore(of);
const signal = new AbortController().signal;

function configOf(initFrom: string, given: Record<string, unknown> = {}): RunConfig {
  const train = { steps: 2, globalBatch: 4, lanes: 2, initFrom, optimizer: { lr: 1e-3 }, ema: { decay: 0.9 } };
  const data = { manifest: 'file:///none/manifest.json' };
  return runConfigSchema.parse({ run: 'begin', store: 'file:///none', model: smallConfig, data, train, ...given });
}

/** Values of the parameters and buffers of the trained model as a run begins. */
async function firstValues(config: RunConfig): Promise<Map<string, Float32Array>> {
  const modelConfig = resolveModelConfig(config.model);
  const first = await loadInitialWeights(config, modelConfig, openStore, signal);
  const { model, trainer } = newTrainer(config, modelConfig, engine, first);
  try {
    return readAll([...model.parameters, ...(model.buffers ?? [])]);
  } finally {
    trainer.dispose();
    model.dispose();
  }
}

describe('train.initFrom', () => {
  it('begins a CLIP with all of the weights of a folder', async () => {
    expect(await firstValues(configOf(url('hf')))).toEqual(weights);
  });

  it('begins a CLIP with an image tower alone; what it lacks is the seed’s', async () => {
    const values = await firstValues(configOf(url('tower/open_clip_model.safetensors')));
    const drawn = await firstValues({
      ...configOf(url('tower')),
      train: { ...configOf(url('tower')).train, initFrom: undefined },
    });
    const tower = new Set(backboneSpecs(smallConfig.vision).map(({ name }) => name));
    for (const [name, value] of values) expect(value, name).toEqual((tower.has(name) ? weights : drawn).get(name));
  });

  it('begins SimCLR and MoCo with the image tower of a CLIP, the momentum encoder too', async () => {
    const simclr = await firstValues(configOf(url('hf'), { objective: 'simclr' }));
    const moco = await firstValues(configOf(url('hf'), { objective: 'moco-v2' }));
    for (const { name } of backboneSpecs(smallConfig.vision)) {
      expect(simclr.get(name), name).toEqual(weights.get(name));
      expect(moco.get(name), name).toEqual(weights.get(name));
      expect(moco.get(`key.${name}`), name).toEqual(weights.get(name));
    }
    expect([...simclr.keys()].some((name) => name.startsWith('head.'))).toBe(true);
  });

  it('resizes the positions to the run’s pictures', async () => {
    const model = { ...smallConfig, vision: { ...smallConfig.vision, imageSize: 24 } };
    const values = await firstValues(configOf(url('hf'), { model }));
    expect(values.get('visual.positional_embedding')).toHaveLength(37 * 32);
    expect(values.get('visual.proj')).toEqual(weights.get('visual.proj'));
  });

  it('names every setting in which the weights are of another model, also those that no shape shows', async () => {
    const model = { ...smallConfig, quickGelu: true, vision: { ...smallConfig.vision, headWidth: 8 } };
    const attempt = firstValues(configOf(url('hf'), { model }));
    await expect(attempt).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      fields: { problems: [{ path: 'model.quickGelu' }, { path: 'model.vision.headWidth' }] },
    });
  });

  it.each([
    [
      'nowhere',
      /nowhere \(train.initFrom\): .*Give a folder or a file of weights, or a run in its store: STORE\/runs\/NAME$/,
    ],
    ['runs/none', /runs\/none \(train.initFrom\)/],
    ['runs/none/ckpt/step-0000000002-g1', /runs\/none\/ckpt\/step-0000000002-g1 \(train.initFrom\)/],
  ])('says what can be given where %s is nothing to begin with', async (place, message) => {
    const refused = firstValues(configOf(url(place)));
    await expect(refused).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(refused).rejects.toThrow(message);
  });

  it('says where the run normalises pictures otherwise', () => {
    const { mean, std } = configOf(url('hf')).data;
    expect(unlikePreprocess({ mean, std }, { mean, std })).toBeUndefined();
    const theirs = { mean: [0.5, 0.4, 0.3], std } as const;
    expect(unlikePreprocess({ mean, std }, theirs)).toMatch(/normalised otherwise; set data.mean: \[0.5, 0.4, 0.3\]$/);
  });
});
