import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { canonicalJson } from '../../common/config/canonical-json.ts';
import { type LoadRunConfigOptions, loadRunConfig } from '../../common/config/load-run-config.ts';
import { type ConfigProblem, formatProblems } from '../../common/config/problems.ts';
import { configJsonSchema, editDistance, nearestKey } from '../../common/config/schema-keys.ts';
import { CoveyError } from '../../common/errors.ts';

const MINIMAL = `run: first
store: s3://covey/runs
model: tiny
data:
  manifest: s3://covey/data/manifest.json
train:
  steps: 10
  globalBatch: 64
  lanes: 4
`;

async function problemsOf(options: LoadRunConfigOptions): Promise<readonly ConfigProblem[]> {
  const error = await loadRunConfig(options).catch((thrown: unknown) => thrown);
  if (!CoveyError.is(error, 'CONFIG_INVALID')) throw new Error(`expected CONFIG_INVALID, got ${error}`);
  return error.fields['problems'] as ConfigProblem[];
}

describe('loading a run configuration', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(path.join(os.tmpdir(), 'covey-config-'));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  it('fills in defaults and freezes the result deeply', async () => {
    const { config } = await loadRunConfig({ text: MINIMAL });
    expect(config.train.optimizer.beta2).toBe(0.98);
    expect(() => Object.assign(config.train.optimizer, { lr: 1 })).toThrow(TypeError);
    expect(() => config.data.augment.scale.push(1 as never)).toThrow(TypeError);
  });

  it('names every problem at once, with line, column, value and a suggestion', async () => {
    const text = `run: First Run
store: s3://covey/runs
model: tiny
data:
  manifest: s3://covey/m.json
  prefetchStep: 3
train:
  stepz: 10
  globalBatch: many
  lanes: 4
  optimizer:
    lr: -1
    beta1: 2
`;
    const problems = await problemsOf({ text });
    expect(problems.map(({ path: at, line, column }) => [at, line, column])).toEqual([
      ['run', 1, 1],
      ['data.prefetchStep', 6, 3],
      ['train.steps', 7, 1],
      ['train.stepz', 8, 3],
      ['train.globalBatch', 9, 3],
      ['train.optimizer.lr', 12, 5],
      ['train.optimizer.beta1', 13, 5],
    ]);
    const by = Object.fromEntries(problems.map((problem) => [problem.path, problem]));
    expect(by['data.prefetchStep']!.message).toContain('did you mean prefetchSteps?');
    expect(by['train.stepz']!.message).toContain('did you mean steps?');
    expect(by['train.steps']!.message).toBe('required but missing');
    expect(by['train.globalBatch']).toMatchObject({ value: 'many', message: expect.stringContaining('"many"') });
    expect(formatProblems(problems, 'run.yaml')).toContain('run.yaml:12:5: train.optimizer.lr: ');
  });

  it('reports doubled keys and broken YAML with their lines', async () => {
    expect(await problemsOf({ text: `${MINIMAL}run: again\n` })).toMatchObject([
      { message: 'key appears twice', line: 10, column: 1 },
    ]);
    expect(await problemsOf({ text: 'run: [1, 2\nstore: x\n' })).toMatchObject([
      { message: expect.stringContaining('not valid YAML'), line: expect.any(Number) },
    ]);
    expect(await problemsOf({ text: '- a\n- b\n' })).toMatchObject([{ message: 'must be a map of keys to values' }]);
  });

  it('reports rules between fields', async () => {
    const problems = await problemsOf({ text: MINIMAL.replace('lanes: 4', 'lanes: 3') });
    expect(problems).toMatchObject([
      { path: 'train.lanes', line: 9, message: expect.stringContaining('must divide train.globalBatch (64)') },
    ]);
  });

  it('judges an object model by the fields of a model', async () => {
    const problems = await problemsOf({
      text: MINIMAL.replace('model: tiny', 'model:\n  preset: tiny\n  vision:\n    layer: 3\n    width: no'),
    });
    expect(problems.map((problem) => [problem.path, problem.line])).toEqual([
      ['model.vision.layer', 6],
      ['model.vision.width', 7],
    ]);
    expect(problems[0]!.message).toContain('did you mean layers?');
  });

  it('lets the environment override the file, and --set override both', async () => {
    const env = {
      COVEY_RUN__TRAIN__STEPS: '20',
      COVEY_RUN__TRAIN__GLOBAL_BATCH: '128',
      COVEY_RUN__SEED: '7',
      COVEY_S3_REGION: 'x',
      COVEY_RUN__RUN: '',
    };
    const sets = [
      'train.steps=30',
      'data.augment.scale=[0.5, 1]',
      'run=2024',
      'model.vision.layers=2',
      'train.steps=31',
    ];
    const { config, origins } = await loadRunConfig({ text: MINIMAL, env, sets });
    expect(config.train).toMatchObject({ steps: 31, globalBatch: 128 });
    expect(config).toMatchObject({ seed: 7, run: '2024', model: { preset: 'tiny', vision: { layers: 2 } } });
    expect(config.data.augment.scale).toEqual([0.5, 1]);
    expect(origins['train.steps']).toEqual({ source: 'set', text: 'train.steps=31' });
    expect(origins['train.globalBatch']).toEqual({ source: 'env', name: 'COVEY_RUN__TRAIN__GLOBAL_BATCH' });
    expect(origins['train.lanes']).toMatchObject({ source: 'file', line: 9 });
    expect(origins['train.precision']).toEqual({ source: 'default' });
    expect(origins['model.vision.layers']).toMatchObject({ source: 'set' });
  });

  it('takes the default for null in an override', async () => {
    const { config, origins } = await loadRunConfig({ text: `${MINIMAL}seed: 5\n`, sets: ['seed=null'] });
    expect(config.seed).toBe(0);
    expect(origins['seed']).toEqual({ source: 'default' });
  });

  it('names the variable or argument that is wrong', async () => {
    const env = { COVEY_RUN__TRAIN__STEPZ: '20', COVEY_RUN__SEED: 'x' };
    const problems = await problemsOf({
      text: MINIMAL,
      env,
      sets: ['nonsense', 'train.lanes.x=1', 'train.optimizer.lr=[1'],
    });
    const formatted = formatProblems(problems, 'run.yaml');
    expect(formatted).toContain('environment COVEY_RUN__TRAIN__STEPZ: train.stepz: unknown key; did you mean steps?');
    expect(formatted).toContain('environment COVEY_RUN__SEED: seed: ');
    expect(formatted).toContain('--set nonsense: not an assignment');
    expect(formatted).toContain('--set train.lanes.x=1: train.lanes.x: train.lanes is not an object');
    expect(formatted).toContain('--set train.optimizer.lr=[1: train.optimizer.lr: the value is not valid YAML');
  });

  it('resolves plain paths against the file, and those of overrides against the working directory', async () => {
    const file = path.join(folder, 'run.yaml');
    await writeFile(
      file,
      MINIMAL.replace('s3://covey/runs', './store').replace('s3://covey/data/manifest.json', 'data/m.json'),
    );
    const fromFile = await loadRunConfig({ path: file, cwd: '/elsewhere' });
    expect(fromFile.config.store).toBe(`file://${folder}/store`);
    expect(fromFile.config.data).toMatchObject({ manifest: `file://${folder}/data/m.json`, tokenizer: 'clip' });
    const overridden = await loadRunConfig({
      path: file,
      cwd: '/elsewhere',
      sets: ['store=other', 'data.cacheDir=cache'],
    });
    expect(overridden.config.store).toBe('file:///elsewhere/other');
    expect(overridden.config.data.cacheDir).toBe('/elsewhere/cache');
  });

  it('says NOT_FOUND for a missing file', async () => {
    await expect(loadRunConfig({ path: path.join(folder, 'none.yaml') })).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  it('refuses credentials in a URL without printing them', async () => {
    const error = await loadRunConfig({ text: MINIMAL.replace('s3://covey', 's3://key:hunter2@covey') }).catch(
      (thrown: unknown) => thrown as Error,
    );
    expect(error).toMatchObject({ code: 'CONFIG_INVALID' });
    expect(String(error) + JSON.stringify(error)).not.toContain('hunter2');
  });

  it('hashes what is meant, not how it is written', async () => {
    const one = await loadRunConfig({ text: MINIMAL });
    const reordered = await loadRunConfig({
      text: `# a comment\n${MINIMAL.split('\n').slice(1).join('\n')}run: "first"\n`,
    });
    const other = await loadRunConfig({ text: MINIMAL, sets: ['seed=1'] });
    expect(reordered.sha256).toBe(one.sha256);
    expect(other.sha256).not.toBe(one.sha256);
    expect(one.sha256).toMatch(/^[0-9a-f]{64}$/);
  });
});

describe('the configuration’s tools', () => {
  it('writes canonical JSON that reads back to the same value, whatever the order of keys', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (value) => {
        const reversed = Object.fromEntries(Object.entries(value).reverse());
        expect(canonicalJson(reversed)).toBe(canonicalJson(value));
        expect(JSON.parse(canonicalJson(value))).toEqual(JSON.parse(JSON.stringify(value)));
      }),
    );
  });

  it('finds the key that a typing error meant', () => {
    expect(nearestKey('globalBacth', ['globalBatch', 'lanes'])).toBe('globalBatch');
    expect(nearestKey('global_batch', ['globalBatch', 'lanes'])).toBe('globalBatch');
    expect(nearestKey('zzzz', ['globalBatch', 'lanes'])).toBeUndefined();
  });

  it('measures edit distance as a metric does', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 12 }), fc.string({ maxLength: 12 }), (a, b) => {
        expect(editDistance(a, a)).toBe(0);
        expect(editDistance(a, b)).toBe(editDistance(b, a));
        expect(editDistance(a, b)).toBeLessThanOrEqual(Math.max(a.length, b.length));
      }),
    );
  });

  it('publishes a JSON Schema that knows every section', () => {
    const schema = configJsonSchema() as { properties: Record<string, unknown>; required: string[] };
    expect(Object.keys(schema.properties)).toEqual(
      expect.arrayContaining(['run', 'store', 'model', 'data', 'train', 'checkpoint', 'workers', 'timing']),
    );
    expect(schema.required.sort()).toEqual(['data', 'model', 'run', 'store', 'train']);
  });
});
