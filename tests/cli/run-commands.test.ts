import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '../../common/clock.ts';
import { runConfigSchema } from '../../common/config/run-config.ts';
import { silentLogger } from '../../common/log.ts';
import { openObjectStore } from '../../common/objectstore/open.ts';
import { type RunningCoordinator, startCoordinator } from '../../coordinator/main.ts';

const MAIN = path.resolve(import.meta.dirname, '../../dist/cli/main.js');

interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the compiled command as a person would, in `cwd`. `interruptAfter`: SIGINT once stderr holds this text. */
function covey(
  args: readonly string[],
  options: { cwd: string; env?: Record<string, string>; interruptAfter?: string },
): Promise<Finished> {
  return new Promise((resolve) => {
    const env = { ...process.env, NO_COLOR: '1', ...options.env };
    const child = spawn(process.execPath, [MAIN, ...args], { cwd: options.cwd, env, timeout: 30_000 });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (data) => {
      stdout += data;
    });
    child.stderr.on('data', (data) => {
      const before = stderr;
      stderr += data;
      const text = options.interruptAfter;
      if (text && stderr.includes(text) && !before.includes(text)) setTimeout(() => child.kill('SIGINT'), 300);
    });
    child.on('close', (code) => resolve({ code, stdout, stderr }));
  });
}

const YAML = (store: string) => `run: cli-test
store: ${store}
model: tiny
data: { manifest: file:///nowhere/manifest.json }
train: { steps: 10, globalBatch: 8, lanes: 2 }
`;

describe('commands against a coordinator', { timeout: 60_000 }, () => {
  let folder: string;
  let coordinator: RunningCoordinator;
  const run = (...args: string[]) => covey(args, { cwd: folder, env: { COVEY_COORDINATOR: coordinator.grpcAddress } });

  beforeAll(async () => {
    folder = mkdtempSync(path.join(tmpdir(), 'covey-cli-'));
    const store = openObjectStore(`file://${folder}/store`);
    coordinator = await startCoordinator(
      { natsUrl: 'nats://127.0.0.1:4' },
      { store, openStore: (url) => openObjectStore(url), clock: systemClock, logger: silentLogger },
    );
    writeFileSync(path.join(folder, 'run.yaml'), YAML('store'));
  });
  afterAll(async () => {
    await coordinator.close();
    rmSync(folder, { recursive: true, force: true });
  });

  it('submits a run, lists it, shows it', async () => {
    const launched = await run('launch', 'run.yaml', '--detach', '--set', 'train.steps=12', '--json');
    expect(launched).toMatchObject({ code: 0 });
    expect(JSON.parse(launched.stdout)).toMatchObject({ run: 'cli-test', state: 'pending', totalSteps: 12 });

    const listed = await run('ps', '--json');
    expect(JSON.parse(listed.stdout)).toEqual([expect.objectContaining({ run: 'cli-test', step: 0 })]);

    const shown = await run('status', 'cli-test');
    expect(shown.code).toBe(0);
    expect(shown.stdout).toContain('step         0 of 12');
  });

  it('refuses another configuration under the same name', async () => {
    const other = await run('launch', 'run.yaml', '--detach', '--set', 'train.steps=99');
    expect(other.code).toBe(1);
    expect(other.stderr).toContain('cli-test');
  });

  it('stops following on Ctrl-C with 130 and says how to follow again, while the run goes on', async () => {
    const followed = await covey(['launch', 'run.yaml', '--set', 'train.steps=12'], {
      cwd: folder,
      env: { COVEY_COORDINATOR: coordinator.grpcAddress },
      interruptAfter: 'submitted',
    });
    expect(followed.code).toBe(130);
    expect(followed.stderr).toContain('covey status cli-test -w');
    expect(JSON.parse((await run('status', 'cli-test', '--json')).stdout)).toMatchObject({ state: 'pending' });
  });

  it('stops a run, and continues it only when asked to', async () => {
    const stopped = await run('stop', 'cli-test', '--json');
    expect(stopped.code).toBe(0);
    expect(JSON.parse(stopped.stdout)).toMatchObject({ state: 'stopped' });
    const again = await run('launch', 'run.yaml', '--set', 'train.steps=12', '--detach');
    expect(again.code).toBe(1);
    expect(again.stderr).toContain('--resume');
    const resumed = await run('resume', 'cli-test', '--json');
    expect(JSON.parse(resumed.stdout)).toMatchObject({ state: 'pending' });
  });

  it('hides ended runs from ps unless asked', async () => {
    await run('stop', 'cli-test');
    expect(JSON.parse((await run('ps', '--json')).stdout)).toEqual([]);
    expect(JSON.parse((await run('ps', '--all', '--json')).stdout)).toHaveLength(1);
  });

  it('says which run is unknown, with exit code 1 and JSON for programs', async () => {
    const unknown = await run('status', 'no-such-run', '--json');
    expect(unknown.code).toBe(1);
    expect(JSON.parse(unknown.stdout)).toMatchObject({ error: { code: 'NOT_FOUND' } });
    expect(unknown.stderr).toContain('no-such-run');
  });

  it('lists no checkpoints where there are none, also without the coordinator', async () => {
    expect(await run('ckpt', 'ls', 'cli-test', '--json')).toMatchObject({ code: 0, stdout: '[]\n' });
    const direct = await covey(['ckpt', 'ls', 'cli-test', '--json', '--store', `file://${folder}/store`], {
      cwd: folder,
    });
    expect(direct).toMatchObject({ code: 0, stdout: '[]\n' });
    const exported = await run('export', 'cli-test', '-o', 'out');
    expect(exported.code).toBe(1);
    expect(exported.stderr).toContain('covey ckpt ls cli-test');
  });
});

describe('commands without a coordinator', { timeout: 60_000 }, () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'covey-cli-'));
    writeFileSync(path.join(folder, 'run.yaml'), YAML('store'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const run = (...args: string[]) => covey(args, { cwd: folder, env: { COVEY_COORDINATOR: '127.0.0.1:9' } });

  it('exits 4 where the coordinator cannot be reached, and says how to start one', async () => {
    const { code, stderr, stdout } = await run('ps');
    expect(code).toBe(4);
    expect(stdout).toBe('');
    expect(stderr).toContain('covey up');
  });

  it('exits 2 for wrong use', async () => {
    expect((await run('no-such-command')).code).toBe(2);
    expect((await run('status')).code).toBe(2);
    expect((await run('up', '--workers', 'many')).code).toBe(2);
    expect((await run('pack', 'nowhere', 'there')).code).toBe(2);
  });

  it('exits 0 for --help and documents the exit codes there', async () => {
    const { code, stdout } = await run('--help');
    expect(code).toBe(0);
    for (const expected of ['launch', 'doctor', 'Exit codes:', '130']) expect(stdout).toContain(expected);
  });

  it('exits 3 for an invalid configuration and lists every problem with its line', async () => {
    writeFileSync(
      path.join(folder, 'bad.yaml'),
      'run: Not_Valid\nstore: store\nmodel: tiny\ndata: { manifest: m.json, augmnet: {} }\ntrain:\n  steps: -5\n  globalBatch: 10\n  lanes: 3\n  precision: fp64\n',
    );
    const validated = await run('config', 'validate', 'bad.yaml', '--json');
    expect(validated.code).toBe(3);
    const { valid, problems } = JSON.parse(validated.stdout) as {
      valid: boolean;
      problems: { path: string; line: number }[];
    };
    expect(valid).toBe(false);
    expect(problems.map((problem) => [problem.path, problem.line])).toEqual(
      expect.arrayContaining([
        ['run', 1],
        ['data.augmnet', 4],
        ['train.steps', 6],
        ['train.precision', 9],
      ]),
    );
    const plain = await run('launch', 'bad.yaml', '--detach');
    expect(plain.code).toBe(3);
    expect(plain.stderr).toContain('bad.yaml:6');
  });

  it('shows a configuration with its defaults and where each value is from', async () => {
    const shown = await run('config', 'show', 'run.yaml', '--origin', '--json', '--set', 'seed=7');
    expect(shown.code).toBe(0);
    const rows = JSON.parse(shown.stdout) as { key: string; value: unknown; origin: string }[];
    const row = (key: string) => rows.find((one) => one.key === key);
    expect(row('seed')).toMatchObject({ value: 7, origin: '--set seed=7' });
    expect(row('train.steps')).toMatchObject({ value: 10, origin: expect.stringContaining('run.yaml:5') });
    expect(row('checkpoint.keepLast')).toMatchObject({ value: 3, origin: 'default' });
  });

  it('prints the schema that the configuration page is made from', async () => {
    const { stdout } = await run('config', 'schema');
    expect(runConfigSchema.safeParse({}).success).toBe(false);
    expect(JSON.parse(stdout)).toMatchObject({ properties: { run: {}, train: {} } });
  });

  it('packs a folder and checks it in a dry run', async () => {
    const { default: sharp } = await import('sharp');
    const { mkdirSync } = await import('node:fs');
    mkdirSync(path.join(folder, 'pictures'));
    for (let index = 0; index < 8; index++) {
      const name = index % 2 === 0 ? 'red ball' : 'blue cube';
      const picture = sharp({
        create: { width: 20, height: 20, channels: 3, background: index % 2 === 0 ? 'red' : 'blue' },
      });
      await picture.png().toFile(path.join(folder, `pictures/${index}.png`));
      writeFileSync(path.join(folder, `pictures/${index}.txt`), name);
    }
    writeFileSync(path.join(folder, 'pictures/8.png'), '');
    const packed = await run('pack', 'pictures', 'data', '--json');
    expect(packed.code).toBe(0);
    expect(JSON.parse(packed.stdout)).toMatchObject({
      manifest: `file://${folder}/data/manifest.json`,
      report: { packed: 8, skipped: 1 },
    });
    const planned = await run('launch', 'run.yaml', '--dry-run', '--json', '--set', 'data.manifest=data/manifest.json');
    expect(planned.code).toBe(0);
    expect(JSON.parse(planned.stdout)).toMatchObject({ samples: 8, steps: 10, laneBatch: 4 });
  });

  it('filters a packed dataset into one of its own, and mixes the two in a dry run', async () => {
    const filtered = await run(
      'pack',
      'data/manifest.json',
      '--where',
      'caption == "red ball" and width >= 20',
      '--json',
    );
    expect(filtered.stderr).toBe('');
    const { manifest, report } = JSON.parse(filtered.stdout);
    expect(report.filter).toMatchObject({ kept: 4, dropped: 4 });
    expect(manifest).toMatch(/data\/manifest-[0-9a-f]{16}\.json$/);
    const none = await run('pack', 'data/manifest.json', '--where', 'width > 5000');
    expect(none.code).toBe(2);
    expect(none.stderr).toContain('8 by width > 5000');
    const mixture = `[{manifest: data/manifest.json, weight: 3, name: all}, {manifest: "${manifest}", weight: 1, name: red}]`;
    const mixed = ['--set', 'data.manifest=null', '--set', `data.mixture=${mixture}`];
    const planned = await run('launch', 'run.yaml', '--dry-run', '--json', ...mixed);
    expect(planned.stderr).toBe('');
    expect(JSON.parse(planned.stdout)).toMatchObject({
      samples: 12,
      datasets: [
        { name: 'all', share: 0.75, epochs: 7.5 },
        { name: 'red', share: 0.25, epochs: 5 },
      ],
    });
  });

  it('refuses to launch an objective on captions over pictures that have none', async () => {
    const packed = await run('pack', 'pictures', 'bare', '--captions', 'none');
    expect(packed.code).toBe(0);
    const launched = await run('launch', 'run.yaml', '--detach', '--set', 'data.manifest=bare/manifest.json');
    expect(launched.code).toBe(3);
    expect(launched.stderr).toContain('clip learns from captions, dataset pictures has none');
  });

  it('refuses to launch an objective on a model or a dataset that lacks what it learns from', async () => {
    const data = ['--set', 'data.manifest=data/manifest.json'];
    const siglip = await run('launch', 'run.yaml', '--detach', ...data, '--set', 'objective=siglip');
    expect(siglip.code).toBe(3);
    expect(siglip.stderr).toContain('model.initLogitBias is needed by objective siglip');
    const labelled = ['--set', 'objective=supcon', '--set', 'loss.classes=2'];
    const supcon = await run('launch', 'run.yaml', '--detach', ...data, ...labelled);
    expect(supcon.code).toBe(3);
    expect(supcon.stderr).toContain('the dataset has no labels');
  });

  it('exits 5 where nats-server is missing, and names the package', async () => {
    const { code, stderr } = await covey(['up', '--workers', '0', '--port', '0', '--http-port', '0'], {
      cwd: folder,
      env: { COVEY_NATS_SERVER: '/no/such/nats-server' },
    });
    expect(code).toBe(5);
    expect(stderr).toContain('apt-get install nats-server');
  });

  it('finds in doctor what is missing, and exits 5', async () => {
    const broken = await covey(['doctor', '--json'], {
      cwd: folder,
      env: { COVEY_NATS_SERVER: '/no/such/nats-server' },
    });
    expect(broken.code).toBe(5);
    const { ok, checks } = JSON.parse(broken.stdout) as {
      ok: boolean;
      checks: { name: string; state: string; mend?: string }[];
    };
    expect(ok).toBe(false);
    expect(checks.find((check) => check.name === 'nats-server')).toMatchObject({
      state: 'fail',
      mend: expect.stringContaining('apt-get'),
    });
    const store = await run('doctor', '--json', '--store', path.join(folder, 'doctor-store'));
    expect(JSON.parse(store.stdout).checks).toContainEqual(expect.objectContaining({ name: 'store', state: 'ok' }));
  });
});
