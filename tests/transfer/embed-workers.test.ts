import { spawn } from 'node:child_process';
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { type EmbedCommandOptions, embed } from '../../cli/transfer/embed.ts';
import { TransferSession } from '../../cli/transfer/session.ts';
import { exportBackbone } from '../../cli/transfer/tuned-files.ts';
import { packageRoot } from '../../common/built-module.ts';
import { CoveyError } from '../../common/errors.ts';
import { commandContext, type RecordedContext } from '../support/command-context.ts';
import { COVEY_MAIN } from '../support/covey-command.ts';
import { fileStore, makeDataset } from '../support/datasets.ts';
import { folderContents } from '../support/folder-contents.ts';
import { colouredSamples } from './labelled-pictures.ts';
import { smallBackbone } from './small-backbone.ts';

const SHARDS = 4;
const DEADLINE_MS = 60_000;
const KILL_POINT = pathToFileURL(path.join(packageRoot(), 'tests/support/kill-point.mjs')).href;

let folder: string;
let backbone: string;
let data: string;
const out = (name: string) => path.join(folder, name);

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'covey-embed-workers-'));
  backbone = out('backbone');
  await exportBackbone(backbone, smallBackbone());
  const samples = await colouredSamples(8);
  const size = samples.length / SHARDS;
  await makeDataset(
    fileStore(out('data')),
    Array.from({ length: SHARDS }, (_, i) => samples.slice(i * size, (i + 1) * size)),
  );
  data = pathToFileURL(path.join(out('data'), 'manifest.json')).href;
  await run('alone');
});
afterEach(() => vi.unstubAllEnvs());
afterAll(() => rm(folder, { recursive: true, force: true }));

function run(name: string, options: Partial<EmbedCommandOptions> = {}, context: RecordedContext = commandContext()) {
  const all: EmbedCommandOptions = { data, out: out(name), weights: 'last', threads: 1, ...options };
  return TransferSession.run(context, all, (session) => embed(session, backbone, all));
}

/** Every worker process dies at this change of the folder. A shard is four changes. */
function dieAt(name: string, change: number): void {
  vi.stubEnv('NODE_OPTIONS', `--import=${KILL_POINT}`);
  vi.stubEnv('COVEY_TEST_KILL_UNDER', out(name));
  vi.stubEnv('COVEY_TEST_KILL_AT', String(change));
}

/** Worker processes that write into a folder, whoever started them. */
async function workersOf(marker: string): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid) => {
      const read = (what: string) => readFile(`/proc/${pid}/${what}`, 'utf8').catch(() => '');
      const isWorker = (await read('cmdline')).includes('embed-worker-process');
      return isWorker && (await read('environ')).includes(`COVEY_TEST_MARKER=${marker}`) ? [Number(pid)] : [];
    }),
  );
  return found.flat();
}

describe('covey embed --workers', () => {
  it(
    'has the bits of one process, also where workers die and others take their shards',
    async () => {
      const context = commandContext();
      dieAt('dying', 6);
      const result = await run('dying', { workers: 2 }, context);
      expect(result).toMatchObject({ done: 24, total: 24, skipped: 0 });
      expect(context.said()).toContain('a worker ended with SIGKILL; another takes its place');
      expect(await folderContents(out('dying'))).toEqual(await folderContents(out('alone')));
    },
    DEADLINE_MS,
  );

  it(
    'gives up on workers that only die, says so, and goes on when it is run again',
    async () => {
      dieAt('hopeless', 3);
      await expect(run('hopeless', { workers: 2 })).rejects.toMatchObject({
        code: 'UNAVAILABLE',
        message: expect.stringMatching(
          /3 workers in a row ended with SIGKILL.*fewer with --workers.*run the command again/,
        ),
      });
      vi.unstubAllEnvs();
      await run('hopeless');
      expect(await folderContents(out('hopeless'))).toEqual(await folderContents(out('alone')));
    },
    DEADLINE_MS,
  );

  it(
    'hands on what a worker finds wrong, and ends the others',
    async () => {
      await cp(out('data'), out('damaged'), { recursive: true });
      const tar = await readFile(path.join(out('damaged'), '2.tar'));
      await writeFile(path.join(out('damaged'), '2.tar'), tar.fill(7, 600, 700));
      const damaged = pathToFileURL(path.join(out('damaged'), 'manifest.json')).href;
      await expect(run('refused', { workers: 2, data: damaged })).rejects.toMatchObject({
        code: 'DATA_CORRUPT',
        message: expect.stringContaining('2.tar'),
      });
    },
    DEADLINE_MS,
  );

  it.runIf(process.platform === 'linux')(
    'ends its workers when it is interrupted, and they end when it is killed',
    async () => {
      vi.stubEnv('COVEY_TEST_MARKER', 'interrupted');
      const context = commandContext();
      const interrupted = run('interrupted', { workers: 2 }, context);
      const outcome = expect(interrupted).rejects.toMatchObject({ code: 'CANCELLED' });
      await vi.waitUntil(async () => (await workersOf('interrupted')).length === 2, DEADLINE_MS);
      context.abort(new CoveyError('CANCELLED', 'interrupted by a test'));
      await outcome;
      expect(await workersOf('interrupted')).toEqual([]);

      const options = ['--data', data, '-o', out('killed'), '--workers', '2', '--threads', '1'];
      const parent = spawn(process.execPath, [COVEY_MAIN, 'embed', backbone, ...options], {
        stdio: 'ignore',
        env: { ...process.env, COVEY_TEST_MARKER: 'killed' },
      });
      await vi.waitUntil(async () => (await workersOf('killed')).length > 0, DEADLINE_MS);
      parent.kill('SIGKILL');
      await vi.waitUntil(async () => (await workersOf('killed')).length === 0, DEADLINE_MS);
    },
    DEADLINE_MS,
  );
});
