import { chmod, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { EXIT } from '../../cli/exit-codes.ts';
import { packageRoot } from '../../common/built-module.ts';
import { openObjectStore } from '../../common/objectstore/open.ts';
import { RandomStream } from '../../common/random.ts';
import { parameterShapes } from '../../models/clip/parameter-shapes.ts';
import { shapedWeights } from '../../models/formats/weights.ts';
import { trainBpe } from '../../models/tokenizer/bpe-trainer.ts';
import { madeUpCaptions, smallConfig, smallWeights } from '../models/small-model.ts';
import { runCovey } from '../support/covey-command.ts';
import { fileStore, makeDataset } from '../support/datasets.ts';
import { folderContents } from '../support/folder-contents.ts';
import { putStoredRun } from '../support/stored-run.ts';
import { colouredSamples } from './labelled-pictures.ts';

const KILL_POINT = path.join(packageRoot(), 'tests/support/kill-point.mjs');
const KILLED = 137;
const DEADLINE_MS = 120_000;

let folder: string;
let store: string;
let manifest: string;

const inFolder = (...names: string[]) => path.join(folder, ...names);

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'covey-killed-'));
  store = pathToFileURL(inFolder('store')).href;
  const samples = await colouredSamples(8);
  const data = fileStore(inFolder('data'));
  await makeDataset(data, [samples.slice(0, 9), samples.slice(9, 18), samples.slice(18)]);
  manifest = pathToFileURL(inFolder('data', 'manifest.json')).href;
  await data.put('tokenizer.json', Buffer.from(trainBpe(madeUpCaptions(200), { vocabSize: 600 })));
  const opened = openObjectStore(store);
  const config = {
    run: 'pairs',
    model: smallConfig,
    data: { manifest, tokenizer: pathToFileURL(inFolder('data', 'tokenizer.json')).href },
    train: { steps: 9, globalBatch: 8, lanes: 1 },
  };
  const tensors = shapedWeights(parameterShapes(smallConfig), smallWeights());
  await putStoredRun(opened, config, { step: 9, tensors });
  await opened.close();
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const RUN = ['pairs', '--store'];
const COMPUTE = ['--threads', '1'];
const TEMPLATES = ['--template', 'a {}', '--template', '{} of {}'];
const TUNE = ['--steps', '6', '--batch', '6', '--evaluate-every', '2', '--warmup', '1'];

/** A death in the middle of a write or before a rename, or a disk that fills up. */
type Disturbance = 'kill' | 'full disk';

interface Command {
  readonly title: string;
  readonly arguments: () => readonly string[];
  /** One after the other in the same folder. */
  readonly disturbances: readonly Disturbance[];
  /** With `full disk`: no larger file can be written. */
  readonly fileBytesMax?: number;
}

const COMMANDS: readonly Command[] = [
  {
    title: 'embed',
    arguments: () => ['embed', ...RUN, store, '--data', manifest, ...COMPUTE, '--format', 'parquet', '--page', '4'],
    disturbances: ['full disk', 'kill'],
    fileBytesMax: 1024,
  },
  {
    title: 'probe',
    arguments: () => ['probe', ...RUN, store, '--data', manifest, ...COMPUTE],
    disturbances: ['kill'],
  },
  {
    title: 'prompts',
    arguments: () => ['prompts', ...RUN, store, '--data', manifest, ...COMPUTE, ...TEMPLATES],
    disturbances: ['kill'],
  },
  {
    title: 'finetune of all weights',
    arguments: () => ['finetune', ...RUN, store, '--data', manifest, ...COMPUTE, ...TUNE, '--head', 'probe', '--wise'],
    disturbances: ['kill'],
  },
  {
    title: 'finetune with an adapter',
    arguments: () => ['finetune', ...RUN, store, '--data', manifest, ...COMPUTE, ...TUNE, '--adapter', 'lora'],
    disturbances: ['kill', 'full disk'],
    fileBytesMax: 8192,
  },
  {
    title: 'compare',
    arguments: () => {
      const chosen = ['--fractions', '0.5,1', '--methods', 'probe,finetune'];
      return ['compare', ...RUN, store, '--data', manifest, ...COMPUTE, ...TUNE, ...chosen];
    },
    disturbances: ['kill'],
  },
  {
    title: 'domain',
    // Of like pictures: how far apart they are is no matter here.
    arguments: () => [
      ...['domain', ...RUN, store, '--source', manifest, '--target', manifest, ...COMPUTE, ...TUNE],
      ...['--discriminator-width', '8', '--judge-target'],
    ],
    disturbances: ['kill'],
  },
  {
    title: 'adapter merge',
    arguments: () => {
      const adapter = inFolder('finetune with an adapter', 'out', 'adapter.safetensors');
      return ['adapter', 'merge', ...RUN, store, ...COMPUTE, '--adapter', adapter];
    },
    disturbances: ['kill'],
  },
  {
    title: 'export',
    arguments: () => ['export', ...RUN, store, '--format', 'all'],
    disturbances: ['full disk'],
    fileBytesMax: 2 ** 16,
  },
  {
    title: 'import',
    arguments: () => ['import', inFolder('export', 'out', 'hf'), '--format', 'onnx'],
    disturbances: ['kill'],
  },
];

/** Runs a command into a folder. @param env see kill-point.mjs: where it dies, or where it counts its changes of that folder */
function into(
  out: string,
  { arguments: given }: Command,
  env: Readonly<Record<string, string>>,
  fileBytesMax?: number,
) {
  return runCovey([...given(), '-o', out], {
    cwd: folder,
    nodeArguments: ['--import', pathToFileURL(KILL_POINT).href],
    env: { COVEY_TEST_KILL_UNDER: out, ...env },
    ...(fileBytesMax === undefined ? {} : { fileBytesMax }),
  });
}

async function disturb(out: string, command: Command, disturbance: Disturbance, point: number): Promise<void> {
  if (disturbance === 'kill') {
    const { code, stderr } = await into(out, command, { COVEY_TEST_KILL_AT: String(point) });
    expect(code, `at change ${point}: ${stderr}`).toBe(KILLED);
    return;
  }
  const { code, stderr } = await into(out, command, {}, command.fileBytesMax);
  expect(code, stderr).toBe(EXIT.failed);
  expect(stderr).toMatch(/error: Cannot write .*: EFBIG; free space or raise the limit/);
  // What does not fit is not left to fill the disk.
  expect([...(await folderContents(out)).keys()].filter((name) => name.includes('.part'))).toEqual([]);
}

describe.each(COMMANDS)('covey $title, disturbed ($disturbances) and run again', (command) => {
  it(
    'has the files of an undisturbed one, and no others',
    async () => {
      const { title, disturbances } = command;
      const [whole, disturbed] = [inFolder(title, 'out'), inFolder(title, 'disturbed', 'out')];
      const counted = inFolder(`${title}.points`);
      const undisturbed = await into(whole, command, { COVEY_TEST_POINTS: counted });
      expect(undisturbed.code, undisturbed.stderr).toBe(EXIT.ok);
      const points = Number(await readFile(counted, 'utf8'));
      expect(points).toBeGreaterThanOrEqual(4);
      // A second death comes in what was left to do.
      let left = points;
      const random = new RandomStream('kill', title);
      for (const disturbance of disturbances) {
        const point = 1 + random.integer(Math.floor(left / disturbances.length));
        await disturb(disturbed, command, disturbance, point);
        left -= point;
      }
      const again = await into(disturbed, command, {});
      expect(again.code, again.stderr).toBe(EXIT.ok);
      expect(await folderContents(disturbed)).toEqual(await folderContents(whole));
    },
    DEADLINE_MS,
  );
});

describe('covey verify-export', () => {
  it(
    'killed, leaves the export as it was, and says the same when it is run again',
    async () => {
      const exported = inFolder('export', 'out', 'tfjs');
      const reference = inFolder('export', 'out', 'open_clip');
      const verify = ['verify-export', exported, '--reference', reference, '--samples', '2'];
      const before = await folderContents(exported);
      // Weights and engine are open, nothing is compared yet.
      const killed = await runCovey(verify, { cwd: folder, killWhenSaid: 'preparing pictures' });
      expect(killed.code, killed.stderr).toBe(KILLED);
      expect(killed.stdout).toBe('');
      const { code, stdout, stderr } = await runCovey([...verify, '--json'], { cwd: folder });
      expect(code, stderr).toBe(EXIT.ok);
      expect(JSON.parse(stdout)).toMatchObject({ ok: true });
      expect(await folderContents(exported)).toEqual(before);
    },
    DEADLINE_MS,
  );
});

/** Somebody who may read what lies here, and write nowhere: as root that is another user, for others a folder without the right to write. */
const NOBODY = 65534;
const isRoot = process.getuid?.() === 0;
const canStart = !isRoot || (await runCovey(['--version'], { uid: NOBODY, cwd: '/' })).code === 0;

describe.skipIf(!canStart)('an output folder that may not be written (skipped where nobody may read covey)', () => {
  it.each(['embed', 'export'])(
    '%s says so, and that it is the folder',
    async (title) => {
      const closed = inFolder('closed');
      await mkdir(closed, { recursive: true });
      await chmod(folder, 0o755);
      await chmod(closed, 0o555);
      const command = COMMANDS.find((one) => one.title === title)!;
      const { code, stderr } = await runCovey([...command.arguments(), '-o', path.join(closed, 'out')], {
        cwd: '/',
        env: { HOME: closed },
        ...(isRoot ? { uid: NOBODY } : {}),
      });
      expect(code, stderr).toBe(EXIT.precondition);
      expect(stderr).toContain('EACCES; give this user access\n');
    },
    DEADLINE_MS,
  );
});
