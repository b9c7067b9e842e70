import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { processEnvironment } from '../../cli/process-environment.ts';
import { builtModule } from '../../common/built-module.ts';
import { silentLogger } from '../../common/log.ts';
import { findNatsServer } from '../../common/nats-server.ts';
import { openObjectStore } from '../../common/objectstore/open.ts';
import { readManifest } from '../../worker/checkpoint/read-checkpoint.ts';
import { temporaryFolder } from '../support/datasets.ts';

const DEMO_TIMEOUT_MS = 280_000;

/** The keys that `covey demo --json` promises. */
const PROMISED = [
  'zeroShotTop1',
  'zeroShotTop5',
  'classes',
  'heldOut',
  'trainSeconds',
  'steps',
  'samplesPerSecond',
  'globalBatch',
  'workers',
  'killed',
  'recoverySeconds',
  'samplesLost',
  'samplesDuplicated',
  'finalLoss',
  'checkpoint',
  'report',
];

// Needs nats-server: `apt-get install nats-server`.
describe.skipIf(findNatsServer() === undefined)('covey demo --json', () => {
  let folder: Awaited<ReturnType<typeof temporaryFolder>>;
  let summary: Record<string, unknown>;
  let lines: string[];

  beforeAll(async () => {
    folder = await temporaryFolder();
    const demo = [fileURLToPath(builtModule('cli/main')), 'demo', '--json', '--minutes', '0.3', '--seed', '7'];
    const { stdout } = await promisify(execFile)(process.execPath, [...demo, '--work-dir', folder.path], {
      env: processEnvironment(process.env),
      timeout: DEMO_TIMEOUT_MS,
      maxBuffer: 2 ** 24,
    });
    lines = stdout.trim().split('\n');
    summary = JSON.parse(lines.at(-1)!);
  }, DEMO_TIMEOUT_MS);

  afterAll(() => folder.remove());

  it('prints one object with every promised figure', () => {
    expect(lines).toHaveLength(1);
    expect(PROMISED.filter((key) => !(key in summary))).toEqual([]);
    expect(summary).toMatchObject({ heldOut: 'fluent-emoji-flat', classes: 1564, workers: 2, seed: 7 });
    expect(summary['zeroShotTop5']).toBeGreaterThanOrEqual(summary['zeroShotTop1'] as number);
  });

  it('survives the kill without losing or doubling a sample', () => {
    expect(summary).toMatchObject({ killed: 1, samplesLost: 0, samplesDuplicated: 0 });
    expect(summary['recoverySeconds']).toBeGreaterThan(0);
    expect(summary['samplesPlanned']).toBe((summary['steps'] as number) * (summary['globalBatch'] as number));
  });

  it('leaves a checkpoint that verifies and a report with pictures and the kill', async () => {
    const store = openObjectStore(String(summary['store']), { logger: silentLogger });
    try {
      const manifest = await readManifest(store, String(summary['checkpoint']));
      expect(manifest.step).toBe(summary['steps']);
    } finally {
      await store.close();
    }
    const report = String(summary['report']);
    expect(existsSync(report)).toBe(true);
    expect(pathToFileURL(path.dirname(report)).href).toContain(String(summary['run']));
    const page = await readFile(report, 'utf8');
    expect(page).toContain('one worker killed');
    expect(page).toContain('data:image/png;base64,');
  });
});
