import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openObjectStore } from '../../common/objectstore/open.ts';
import { parameterShapes } from '../../models/clip/parameter-shapes.ts';
import { loadPretrainedPath } from '../../models/formats/load-pretrained.ts';
import { type HostTensor, readSafetensors, writeSafetensors } from '../../models/formats/safetensors.ts';
import { shapedWeights } from '../../models/formats/weights.ts';
import { trainBpe } from '../../models/tokenizer/bpe-trainer.ts';
import { backboneSpecs } from '../../models/vision/backbone.ts';
import { madeUpCaptions, smallConfig, smallWeights } from '../models/small-model.ts';
import { putStoredRun } from '../support/stored-run.ts';

const MAIN = path.resolve(import.meta.dirname, '../../dist/cli/main.js');
const weights = smallWeights();
let folder: string;
let store: string;

/** The compiled command; commands that read a run do so from its store. */
function covey(...args: readonly string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    const options = { cwd: folder, env: { ...process.env, NO_COLOR: '1' }, timeout: 60_000 };
    execFile(process.execPath, [MAIN, ...args], options, (error, stdout, stderr) => {
      resolve({ code: error ? Number(error.code ?? -1) : 0, stdout, stderr });
    });
  });
}

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'covey-export-'));
  store = pathToFileURL(path.join(folder, 'store')).href;
  writeFileSync(path.join(folder, 'tokenizer.json'), trainBpe(madeUpCaptions(200), { vocabSize: 600 }));
  const manifest = {
    version: 1,
    name: 'drawings',
    sampleCount: 7,
    shards: [
      { key: 'a.tar', bytes: 1, sha256: '0'.repeat(64), samples: 7, indexKey: 'a.json', indexSha256: '0'.repeat(64) },
    ],
    sources: { noto: 'Noto Emoji by Google Inc, Apache 2.0' },
    createdBy: 'test',
  };
  writeFileSync(path.join(folder, 'manifest.json'), JSON.stringify(manifest));
  writeFileSync(path.join(folder, 'results.json'), JSON.stringify({ top1: 0.25, samples: 7, run: 'pairs' }));
  const url = (name: string) => pathToFileURL(path.join(folder, name)).href;
  const opened = openObjectStore(store);
  const common = {
    model: smallConfig,
    data: {
      manifest: url('manifest.json'),
      tokenizer: url('tokenizer.json'),
      mean: [0.5, 0.4, 0.3],
      std: [0.2, 0.25, 0.3],
    },
    train: { steps: 100, globalBatch: 8, lanes: 1, optimizer: { lr: 1e-3 } },
  };
  const tensors = shapedWeights(parameterShapes(smallConfig), weights);
  await putStoredRun(opened, { ...common, run: 'pairs' }, { step: 40, tensors });
  const head: HostTensor = { shape: [2, 2], values: Float32Array.of(1, 2, 3, 4) };
  const views = new Map([
    ...backboneSpecs(smallConfig.vision).map(({ name }) => [name, tensors.get(name)!] as const),
    ['head.3.weight', head] as const,
  ]);
  await putStoredRun(opened, { ...common, run: 'views', objective: 'simclr' }, { step: 60, tensors: views });
  await opened.close();
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('covey export and covey verify-export', { timeout: 120_000 }, () => {
  it('write a CLIP in every format and find each equal to covey', async () => {
    const exported = await covey(
      'export',
      'pairs',
      '--store',
      store,
      '--format',
      'all',
      '-o',
      'out',
      '--metrics',
      'results.json',
      '--json',
    );
    expect(exported.stderr).toBe('');
    expect(JSON.parse(exported.stdout)).toMatchObject({
      kind: 'clip',
      step: 40,
      formats: ['open_clip', 'hf', 'onnx', 'tfjs', 'covey'],
    });
    const verified = await covey(
      'verify-export',
      'out',
      '--run',
      'pairs',
      '--store',
      store,
      '--samples',
      '6',
      '--json',
    );
    const result = JSON.parse(verified.stdout);
    expect(result, verified.stdout).toMatchObject({ ok: true, reference: 'run pairs, step 40' });
    expect(verified.code).toBe(0);
    expect(result.comparisons.map(({ format, output }: Record<string, string>) => `${format} ${output}`)).toEqual([
      'covey settings',
      'covey every value',
      'covey ids',
      'hf settings',
      'hf every value',
      'hf ids',
      'onnx image_embeds',
      'onnx text_embeds',
      'onnx logits_per_image',
      'onnx logits_per_text',
      'onnx text_embeds',
      'onnx image_embeds',
      'onnx ids',
      'open_clip settings',
      'open_clip every value',
      'open_clip ids',
      'tfjs image_embeds',
      'tfjs text_embeds',
      'tfjs ids',
    ]);
  });

  it('put a card with data, training, results and licence notes beside each', () => {
    for (const format of ['open_clip', 'hf', 'onnx', 'tfjs']) {
      const card = readFileSync(path.join(folder, 'out', format, 'README.md'), 'utf8');
      expect(card).toMatch(/^---\nlibrary_name: [a-z_.]+\npipeline_tag: zero-shot-image-classification\n/);
      expect(card).toContain('# pairs');
      expect(card).toContain('- **drawings**: 7 samples\n  - noto: Noto Emoji by Google Inc, Apache 2.0');
      expect(card).toContain('| Steps | 40 of 100 |');
      expect(card).toContain('| top1 | 0.25 |');
      expect(card).toContain('No licence was chosen');
      expect(card).not.toContain('undefined');
      expect(card).not.toContain(folder);
    }
  });

  it('tell one changed weight and one changed graph', async () => {
    const file = path.join(folder, 'out', 'hf', 'model.safetensors');
    const whole = readFileSync(file);
    const { tensors } = readSafetensors(whole);
    const key = 'vision_model.encoder.layers.1.mlp.fc1.bias';
    const { shape, values } = tensors.get(key)!;
    tensors.set(key, { shape, values: values.map((value, i) => (i === 3 ? value + 0.5 : value)) });
    writeFileSync(file, writeSafetensors(tensors));
    const weight = await covey('verify-export', 'out/hf', '--run', 'pairs', '--store', store, '--samples', '2');
    expect(weight.code).toBe(1);
    expect(weight.stdout).toMatch(/hf +weights +every value +5\.00e-1 +more than 0/);
    // The graphs are right, the weights they are compared with are not.
    const graph = await covey('verify-export', 'out/onnx', '--reference', 'out/hf', '--samples', '2', '--json');
    expect(graph.code).toBe(1);
    expect(JSON.parse(graph.stdout)).toMatchObject({ ok: false });
    writeFileSync(file, whole);
  });

  it('write the image tower of a run with captions alone, where that is asked for', async () => {
    const run = ['pairs', '--store', store, '--image-tower'];
    const exported = await covey('export', ...run, '--format', 'hf,onnx', '-o', 'tower of pairs', '--json');
    expect(JSON.parse(exported.stdout), exported.stderr).toMatchObject({ kind: 'backbone', formats: ['hf', 'onnx'] });
    const verified = await covey('verify-export', 'tower of pairs', '--run', ...run, '--samples', '2', '--json');
    const result = JSON.parse(verified.stdout);
    expect(result, verified.stdout).toMatchObject({ ok: true });
    const outputs = result.comparisons.map(({ format, output }: Record<string, string>) => `${format} ${output}`);
    expect(outputs).toEqual(['hf settings', 'hf every value', 'onnx pooler_output']);
  });

  it('write the image tower of a run without captions, alone', async () => {
    const exported = await covey('export', 'views', '--store', store, '--format', 'all', '-o', 'tower', '--json');
    expect(JSON.parse(exported.stdout)).toMatchObject({
      kind: 'backbone',
      fitting: ['open_clip', 'hf', 'onnx', 'tfjs', 'covey'],
    });
    const verified = await covey(
      'verify-export',
      'tower',
      '--run',
      'views',
      '--store',
      store,
      '--samples',
      '4',
      '--json',
    );
    expect(JSON.parse(verified.stdout), verified.stdout + verified.stderr).toMatchObject({ ok: true });
    const loaded = await loadPretrainedPath(path.join(folder, 'tower', 'open_clip'));
    expect(loaded.kind).toBe('backbone');
    expect([...loaded.weights.keys()]).toEqual(backboneSpecs(smallConfig.vision).map(({ name }) => name));
  });

  it('refuse what does not fit with a reason', async () => {
    const unknown = await covey('export', 'pairs', '--store', store, '--format', 'keras', '-o', 'none');
    expect(unknown).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('there are open_clip, hf, onnx, tfjs, covey, all'),
    });
    const nothing = await covey('verify-export', 'store');
    expect(nothing).toMatchObject({ code: 1, stderr: expect.stringContaining('holds no export') });
    const alone = await covey('verify-export', 'out/onnx');
    expect(alone).toMatchObject({ code: 2, stderr: expect.stringContaining('--reference') });
    const metrics = await covey('export', 'pairs', '--store', store, '-o', 'none', '--metrics', 'tokenizer.json.none');
    expect(metrics).toMatchObject({ code: 2, stderr: expect.stringContaining('not a JSON object') });
  });
});

describe('covey import', { timeout: 60_000 }, () => {
  it('reads another layout, resizes the positions, and writes what loads again', async () => {
    const imported = await covey('import', 'out/hf', '-o', 'larger', '--image-size', '24', '--json');
    expect(JSON.parse(imported.stdout), imported.stderr).toMatchObject({
      kind: 'clip',
      imageSize: 24,
      quickGelu: false,
    });
    const loaded = await loadPretrainedPath(path.join(folder, 'larger'));
    expect(loaded.weights.get('visual.positional_embedding')).toHaveLength(37 * 32);
    expect(loaded.weights.get('visual.proj')).toEqual(weights.get('visual.proj'));
  });

  it('refuses weights that would run something, and says what is missing of bare ones', async () => {
    const fixtures = path.resolve(import.meta.dirname, '../models/fixtures/formats');
    const payload = await covey('import', path.join(fixtures, 'payload.pt'), '-o', 'none');
    expect(payload).toMatchObject({ code: 5, stderr: expect.stringContaining('which would run on loading') });
    const bare = await covey('import', 'out/open_clip/open_clip_model.safetensors', '-o', 'bare', '--json');
    expect(bare.code, bare.stderr).toBe(0);
    const nowhere = await covey('import', 'no/such/place', '-o', 'none', '--json');
    expect(nowhere.code).toBe(1);
    expect(JSON.parse(nowhere.stdout)).toMatchObject({ error: { code: 'NOT_FOUND' } });
  });
});
