import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { exportBackbone } from '../../cli/transfer/tuned-files.ts';
import { packageRoot } from '../../common/built-module.ts';
import { fileStore, makeDataset } from '../support/datasets.ts';
import { colouredSamples } from './labelled-pictures.ts';
import { smallBackbone } from './small-backbone.ts';

const run = promisify(execFile);
const DEADLINE_MS = 120_000;

let folder: string;
let backbone: string;
let manifest: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'covey-commands-'));
  backbone = path.join(folder, 'backbone');
  await exportBackbone(backbone, smallBackbone());
  const samples = await colouredSamples(10);
  const store = fileStore(path.join(folder, 'data'));
  await makeDataset(store, [samples.slice(0, 20), samples.slice(20)]);
  manifest = pathToFileURL(path.join(folder, 'data', 'manifest.json')).href;
});
afterAll(() => rm(folder, { recursive: true }));

interface Outcome {
  readonly code: number;
  readonly json: Record<string, unknown>;
  readonly stderr: string;
}

async function covey(...given: string[]): Promise<Outcome> {
  const main = path.join(packageRoot(), 'dist', 'cli', 'main.js');
  const settled = await run(process.execPath, [main, ...given, '--json', '--threads', '1']).then(
    (done) => ({ code: 0, ...done }),
    (failed: { code: number; stdout: string; stderr: string }) => failed,
  );
  const { code, stdout, stderr } = settled;
  return { code, stderr, json: JSON.parse(stdout) as Record<string, unknown> };
}

const out = (name: string) => path.join(folder, name);

describe('covey probe', () => {
  it(
    'finds the optimum, judges by what it did not see, and writes classifier and report',
    async () => {
      const { code, json } = await covey('probe', backbone, '--data', manifest, '-o', out('probe'));
      expect(code).toBe(0);
      expect(json).toMatchObject({ classes: 3, train: 24, validation: 6, judgedOn: 'validation', converged: true });
      expect(json['gradientNormRelative']).toBeLessThanOrEqual(1e-5);
      expect(json['accuracy']).toBeGreaterThan(0.6);
      expect(await readFile(path.join(out('probe'), 'report.html'), 'utf8')).toContain('Linear probe of');
    },
    DEADLINE_MS,
  );

  it(
    'refuses labels that are not there before it computes anything',
    async () => {
      const { code, json } = await covey(
        'probe',
        backbone,
        '--data',
        manifest,
        '--label-key',
        'kind',
        '-o',
        out('none'),
      );
      expect(code).toBe(2);
      expect((json['error'] as { message: string }).message).toMatch(/none of the 30 samples of test has a meta.kind/);
    },
    DEADLINE_MS,
  );
});

describe('covey finetune', () => {
  it(
    'goes from a zero-training head to adapters that are listed and merged',
    async () => {
      const settings = ['--data', manifest, '--steps', '6', '--batch', '8', '--evaluate-every', '3'];
      const tuned = await covey(
        'finetune',
        backbone,
        ...settings,
        '--adapter',
        'lora',
        '--rank',
        '2',
        '-o',
        out('lora'),
      );
      expect(tuned.code).toBe(0);
      expect(tuned.json).toMatchObject({ method: 'lora', classes: 3, steps: 6 });
      const again = await covey(
        'finetune',
        backbone,
        ...settings,
        '--adapter',
        'lora',
        '--rank',
        '2',
        '-o',
        out('lora'),
      );
      expect(again.json).toEqual(tuned.json);
      const other = await covey(
        'finetune',
        backbone,
        ...settings,
        '--adapter',
        'lora',
        '--rank',
        '3',
        '-o',
        out('lora'),
      );
      expect((other.json['error'] as { message: string }).message).toMatch(
        /another fine-tuning is there \(recipe differ\)/,
      );
      const merged = await covey(
        'adapter',
        'merge',
        backbone,
        '--adapter',
        `${out('lora')}/adapter.safetensors`,
        '-o',
        out('merged'),
      );
      expect(merged.code).toBe(0);
      const probed = await covey('probe', out('merged'), '--data', manifest, '-o', out('probe-merged'));
      expect(probed.code).toBe(0);
    },
    DEADLINE_MS,
  );

  it(
    'refuses options that contradict each other',
    async () => {
      const wise = await covey('finetune', backbone, '--data', manifest, '--wise', '-o', out('wise'));
      expect(wise.code).toBe(2);
      expect((wise.json['error'] as { message: string }).message).toMatch(/--wise needs a head/);
      const zero = await covey('finetune', backbone, '--data', manifest, '--head', 'zeroshot', '-o', out('zero'));
      expect((zero.json['error'] as { message: string }).message).toMatch(/not trained with texts/);
    },
    DEADLINE_MS,
  );
});
