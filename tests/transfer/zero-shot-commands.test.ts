import { access, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { promptsCommand } from '../../cli/transfer/prompts.ts';
import { exportBackbone } from '../../cli/transfer/tuned-files.ts';
import { zeroShotCommand } from '../../cli/transfer/zero-shot.ts';
import { weightShapes } from '../../models/clip/parameter-shapes.ts';
import { exportCovey } from '../../models/formats/covey-format.ts';
import { shapedWeights } from '../../models/formats/weights.ts';
import { commandContext } from '../support/command-context.ts';
import { fileStore, makeDataset, temporaryFolder } from '../support/datasets.ts';
import { putStoredRun } from '../support/stored-run.ts';
import { smallClip } from './joint-models.ts';
import { colouredSamples } from './labelled-pictures.ts';
import { smallBackbone } from './small-backbone.ts';

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let backbone: string;
let manifest: string;
const at = (...names: string[]) => path.join(folder.path, ...names);
const urlOf = (...names: string[]) => pathToFileURL(at(...names)).href;

beforeAll(async () => {
  folder = await temporaryFolder();
  backbone = at('clip');
  await exportCovey(backbone, await smallClip());
  const samples = (await colouredSamples(8)).map((one, i) => ({ ...one, caption: `drawing ${i} of ${one.label}` }));
  await makeDataset(fileStore(at('data')), [samples.slice(0, 13), samples.slice(13)]);
  manifest = urlOf('data', 'manifest.json');
});
afterAll(() => folder.remove());

const COMMON = { weights: 'last', threads: 1, descriptions: 'average' } as const;
const options = (more: object) => ({ ...COMMON, data: manifest, cacheDir: at('cache'), ...more });

async function zeroShot(more: object, source = backbone) {
  const context = commandContext({ json: true });
  const code = await zeroShotCommand(context, source, options(more));
  return { code, said: context.said(), json: context.result() };
}

async function prompts(more: object) {
  const context = commandContext({ json: true });
  const given = { validation: 0.5, ensembleMax: 3, seed: 1, ...options(more) } as Parameters<typeof promptsCommand>[2];
  const code = await promptsCommand(context, backbone, given);
  return { code, json: context.result() };
}

describe('covey zeroshot', () => {
  it('classifies by texts, retrieves by captions, and writes figures and a report', async () => {
    const out = at('zero');
    const { code, json } = await zeroShot({ out, template: ['a {}', 'the {}'], predictions: true });
    expect(code).toBe(0);
    expect(json).toMatchObject({ samples: 24, classes: 3, templates: ['a {}', 'the {}'], cutTexts: 0 });
    const predictions = json['predictions'] as { label: string; rank: number; best: { className: string }[] }[];
    expect(json['top1']).toBe(predictions.filter(({ label, best }) => best[0]!.className === label).length / 24);
    expect(json['retrieval']).toMatchObject({ pictures: 24, captions: 24 });
    const written = JSON.parse(await readFile(path.join(out, 'zeroshot.json'), 'utf8')) as { perClass: object[] };
    expect(written).toMatchObject({ top1: json['top1'], retrieval: json['retrieval'] });
    expect(written.perClass).toHaveLength(3);
    const page = await readFile(path.join(out, 'zeroshot.html'), 'utf8');
    for (const part of ['Confusion matrix', 'Every class', 'picture → caption', 'data:image/png']) {
      expect(page).toContain(part);
    }
    const without = await zeroShot({ template: ['a {}', 'the {}'] });
    expect({ ...without.json, predictions }).toEqual(json);
  });

  it('goes on after an interruption and after a kill, to the same results', async () => {
    const more = { template: ['a {}', 'the {}'], predictions: true };
    const { json } = await zeroShot({ ...more, out: at('undisturbed') });
    const out = at('resumed');
    // Looks at the clock are made for progress alone: the third is after the first shard.
    const context = commandContext({ json: true, interruptAtLook: 3 });
    const interrupted = zeroShotCommand(context, backbone, options({ ...more, out }));
    await expect(interrupted).rejects.toMatchObject({ code: 'CANCELLED' });
    expect((await readdir(path.join(out, 'pictures'))).filter((name) => name.endsWith('.keys.jsonl'))).toHaveLength(1);
    await expect(access(path.join(out, 'zeroshot.json'))).rejects.toThrow();
    expect((await zeroShot({ ...more, out })).json).toEqual(json);
    // As if killed in the second shard and in the texts of one template.
    await rm(path.join(out, 'pictures', '00001.keys.jsonl'));
    await writeFile(path.join(out, 'pictures', '00001.npy.part'), 'half');
    const [text] = await readdir(path.join(out, 'texts'));
    await writeFile(path.join(out, 'texts', text!), 'half');
    expect((await zeroShot({ ...more, out })).json).toEqual(json);
    const [one, other] = await Promise.all(
      ['undisturbed', 'resumed'].map((name) => readFile(at(name, 'zeroshot.json'), 'utf8')),
    );
    expect(one).toBe(other);
    await expect(zeroShot({ out, imageSize: 24 })).rejects.toThrow(/embeddings of something else/);
  });

  it('takes a run of covey as it takes files', async () => {
    const { config, weights, preprocess, tokenizer } = await smallClip();
    await mkdir(at('tokens'));
    await writeFile(at('tokens', 'tokenizer.json'), tokenizer.files()['tokenizer.json']!);
    await putStoredRun(
      fileStore(at('store')),
      {
        run: 'pairs',
        model: config,
        data: { manifest, tokenizer: urlOf('tokens', 'tokenizer.json'), ...preprocess },
        train: { steps: 10, globalBatch: 8, lanes: 1, optimizer: { lr: 1e-3 } },
      },
      { step: 5, tensors: shapedWeights(weightShapes(config), weights) },
    );
    const ofRun = (await zeroShot({ store: urlOf('store'), template: ['a {}'] }, 'pairs')).json;
    const ofFiles = (await zeroShot({ template: ['a {}'] })).json;
    expect(ofRun).toEqual({ ...ofFiles, model: 'run pairs, step 5, objective clip' });
  });

  it('uses descriptions, and numbers as labels where the classes have names', async () => {
    await writeFile(at('classes.txt'), 'red\tred, a colour\tthe red one\ngreen\ngray\nblue\n');
    const described = await zeroShot({ classes: at('classes.txt'), descriptions: 'nearest' });
    expect(described.json).toMatchObject({ classes: 4, samples: 24, descriptions: 'nearest' });
    const numbered = (await colouredSamples(2)).map((one, i) => ({ ...one, label: [1, 0, 3][i % 3]! }));
    await makeDataset(fileStore(at('numbers')), [numbered]);
    const data = urlOf('numbers', 'manifest.json');
    await expect(zeroShot({ data })).rejects.toThrow(
      /its labels are numbers \(0, 1, 3 …\) and nothing names them; list/,
    );
    const { json } = await zeroShot({ data, classes: at('classes.txt'), predictions: true });
    const labels = (json['predictions'] as { label: string }[]).map(({ label }) => label);
    expect(labels).toEqual(['green', 'red', 'blue', 'green', 'red', 'blue']);
  });

  it('says what is wrong and what to do before it computes anything', async () => {
    await exportBackbone(at('vision-only'), smallBackbone());
    await expect(zeroShot({}, at('vision-only'))).rejects.toThrow(/has no text tower; name a CLIP or SigLIP with both/);
    await expect(zeroShot({ labelKey: 'kind' })).rejects.toThrow(
      /none of the 24 samples of test has a meta.kind; pack/,
    );
    await writeFile(at('few.txt'), 'red\ngreen\n');
    await expect(zeroShot({ classes: at('few.txt') })).rejects.toThrow(
      /8 labels are not among the 2 classes: .* is 'blue'/,
    );
    await writeFile(at('empty.txt'), '\n');
    await expect(zeroShot({ classes: at('empty.txt') })).rejects.toThrow(/empty.txt: there is no class in it/);
    await expect(zeroShot({ template: ['a photo'] })).rejects.toThrow(/--template: it has no \{\} for the class/);
    await expect(zeroShot({ template: ['a {}', 'a {}'] })).rejects.toThrow(/is there already \(--template\)/);
    await expect(zeroShot({ templates: ['none.txt'] })).rejects.toThrow(/no such file; or name a set: name, openai-80/);
    const same = (await colouredSamples(1)).map((one) => ({ ...one, label: 'thing' }));
    await makeDataset(fileStore(at('same')), [same]);
    await expect(zeroShot({ data: urlOf('same', 'manifest.json') })).rejects.toThrow(/there is a single class, thing/);
    const broken = same.map((one, i) => ({ ...one, label: `${i % 2}x`, image: new Uint8Array(50) }));
    await makeDataset(fileStore(at('broken')), [broken]);
    await expect(zeroShot({ data: urlOf('broken', 'manifest.json') })).rejects.toThrow(
      /none of the 3 labelled ones can be read/,
    );
  });

  it('warns of texts that the model cannot read to their end', async () => {
    const { said, json } = await zeroShot({ template: ['a very long and winding text about a {}'] });
    expect(json['cutTexts']).toBe(3);
    expect(said).toMatch(/3 texts of 1 templates are longer than the model’s context and lose their end/);
  });
});

describe('covey prompts', () => {
  it('judges by other pictures than it chooses by, and says the same twice', async () => {
    await writeFile(at('templates.txt'), 'a {}\nthe {}\n{}\na photo of a {}\n');
    await writeFile(at('described.yaml'), 'red: [red, the red one]\ngreen:\nblue: blue, a colour\n');
    const more = { templates: [at('templates.txt')], classes: at('described.yaml') };
    const { json } = await prompts({ ...more, out: at('prompts') });
    expect(json).toMatchObject({ classes: 3, searchPictures: 12, judgedPictures: 12 });
    const ways = json['ways'] as { name: string; searchAccuracy: number; judgedAccuracy: number; templates: number }[];
    expect(ways.map(({ name }) => name)).toEqual([
      'bare names',
      'worst template',
      'best template',
      'all templates',
      'searched ensemble',
      'searched ensemble, names alone',
      'searched ensemble, nearest description',
    ]);
    const alone = json['templates'] as {
      template: string;
      searchAccuracy: number;
      judgedAccuracy: number;
      accuracy: number;
    }[];
    const best = Math.max(...alone.map(({ searchAccuracy }) => searchAccuracy));
    expect(ways[2]!.searchAccuracy).toBe(best);
    expect(ways[4]!.searchAccuracy).toBeGreaterThanOrEqual(best);
    for (const { accuracy, searchAccuracy, judgedAccuracy } of alone) {
      expect(accuracy).toBeCloseTo((searchAccuracy + judgedAccuracy) / 2, 12);
    }
    const search = json['search'] as { template: string; searchAccuracy: number; judgedAccuracy: number }[];
    expect(search[0]).toMatchObject({ template: alone.find((one) => one.searchAccuracy === best)!.template });
    const ensemble = json['ensemble'] as string[];
    expect(search[ensemble.length - 1]).toMatchObject({
      searchAccuracy: ways[4]!.searchAccuracy,
      judgedAccuracy: ways[4]!.judgedAccuracy,
    });
    const page = await readFile(at('prompts', 'prompts.html'), 'utf8');
    for (const part of ['The search', 'Every template', 'Predictions that flip']) expect(page).toContain(part);
    // What is written is what the next command takes; the pictures are not embedded again.
    const again = await prompts({ ...more, out: at('prompts') });
    expect(again.json).toEqual(json);
    const used = await zeroShot({
      out: at('prompts'),
      templates: [at('prompts', 'best-templates.txt')],
      classes: more.classes,
    });
    expect(used.json['templates']).toEqual(ensemble);
    expect(used.json['top1']).toBeCloseTo((ways[4]!.searchAccuracy + ways[4]!.judgedAccuracy) / 2, 12);
  });
});
