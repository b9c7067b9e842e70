import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { Command } from 'commander';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { addCompareCommand } from '../../cli/commands/compare.ts';
import { addDomainCommand } from '../../cli/commands/domain.ts';
import { addEmbedCommand } from '../../cli/commands/embed.ts';
import { addFinetuneCommand } from '../../cli/commands/finetune.ts';
import { addProbeCommand } from '../../cli/commands/probe.ts';
import { EXIT, exitCodeOf } from '../../cli/exit-codes.ts';
import { compareBackbone } from '../../cli/transfer/compare.ts';
import { domain } from '../../cli/transfer/domain.ts';
import { embed } from '../../cli/transfer/embed.ts';
import { finetune } from '../../cli/transfer/finetune.ts';
import { probe } from '../../cli/transfer/probe.ts';
import { TransferSession } from '../../cli/transfer/session.ts';
import { exportBackbone } from '../../cli/transfer/tuned-files.ts';
import { CoveyError } from '../../common/errors.ts';
import { commandContext } from '../support/command-context.ts';
import { fileStore, makeDataset } from '../support/datasets.ts';
import { colouredSamples } from './labelled-pictures.ts';
import { smallBackbone } from './small-backbone.ts';

type Sample = Awaited<ReturnType<typeof colouredSamples>>[number];

let folder: string;
let outputs = 0;
const inFolder = (...names: string[]) => path.join(folder, ...names);
const manifestOf = (name: string) => pathToFileURL(inFolder(name, 'manifest.json')).href;

/** What the datasets are made of: twelve good samples, four of each of three classes. */
const DATASETS: Readonly<Record<string, (samples: readonly Sample[]) => readonly (readonly Partial<Sample>[])[]>> = {
  good: (samples) => [samples],
  'without labels': (samples) => [samples.map(({ image, caption }) => ({ image, caption }))],
  'with one class': (samples) => [samples.map((sample) => ({ ...sample, label: 'red' }))],
  'with one picture per class': (samples) => [samples.slice(0, 3)],
  'with another class': (samples) => [samples.map((sample, i) => (i === 5 ? { ...sample, label: 'violet' } : sample))],
  'of broken pictures': (samples) => [samples.map((sample) => ({ ...sample, image: Uint8Array.of(1, 2, 3) }))],
  'with two broken pictures, a lonely class and one without label': (samples) => [
    [
      ...samples.map((sample, i) => ({
        ...sample,
        ...(i < 2 ? { image: Uint8Array.of(1, 2, 3) } : {}),
        ...(i === 7 ? { label: 'lonely' } : {}),
      })),
      { image: samples[0]!.image, caption: 'whatever' },
    ],
  ],
};

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'covey-refused-'));
  await exportBackbone(inFolder('backbone'), smallBackbone());
  const samples = await colouredSamples(4);
  for (const [name, shards] of Object.entries(DATASETS)) {
    await makeDataset(fileStore(inFolder(name)), shards(samples) as readonly (readonly Sample[])[]);
  }
  await writeFile(inFolder('classes.txt'), 'blue\ngreen\nred\n');
  // Nothing that covey packs, and still met: somebody's own tool, or a manifest mended by hand.
  const manifest = JSON.parse(await readFile(inFolder('good', 'manifest.json'), 'utf8')) as { shards: object[] };
  const emptied = { 'without samples': [], 'with a shard without samples': [{ ...manifest.shards[0], samples: 0 }] };
  for (const [name, shards] of Object.entries(emptied)) {
    await mkdir(inFolder(name));
    await writeFile(inFolder(name, 'manifest.json'), JSON.stringify({ ...manifest, sampleCount: 0, shards }));
  }
});
afterAll(() => rm(folder, { recursive: true, force: true }));

type Body = (session: TransferSession, source: string, options: never) => Promise<object>;

interface TestedCommand {
  readonly add: (program: Command) => void;
  readonly body: Body;
  readonly small: readonly string[];
}

const TUNE = ['--steps', '2', '--batch', '4', '--evaluate-every', '1'];
const COMMANDS: Readonly<Record<'embed' | 'probe' | 'finetune' | 'compare' | 'domain', TestedCommand>> = {
  embed: { add: addEmbedCommand, body: embed as Body, small: [] },
  probe: { add: addProbeCommand, body: probe as Body, small: [] },
  finetune: { add: addFinetuneCommand, body: finetune as Body, small: TUNE },
  compare: { add: addCompareCommand, body: compareBackbone as Body, small: [...TUNE, '--fractions', '1'] },
  domain: { add: addDomainCommand, body: domain as Body, small: TUNE },
};
type CommandName = keyof typeof COMMANDS;

/** The options as the command line has them. */
function optionsOf(name: CommandName, given: readonly string[]): never {
  const program = new Command().exitOverride();
  COMMANDS[name].add(program);
  const [command] = program.commands;
  command!.action(() => undefined);
  program.parse([name, 'backbone', ...given], { from: 'user' });
  return command!.opts() as never;
}

/** What a command says of some data: its error with the exit code, or its result and all that was said. */
async function outcome(command: CommandName, data: string, ...more: readonly string[]) {
  const context = commandContext();
  const { body, small } = COMMANDS[command];
  // Of two domains the labelled one is looked at; the other is in order, unless something else is asked for.
  const place =
    command === 'domain'
      ? ['--source', manifestOf(data), '--target', manifestOf('good')]
      : ['--data', manifestOf(data)];
  const given = [...place, '-o', inFolder(`out-${outputs++}`), '--threads', '1', ...small, ...more];
  const options = optionsOf(command, given);
  try {
    const run = (session: TransferSession) => body(session, inFolder('backbone'), options);
    return { result: await TransferSession.run(context, options, run), said: context.said() };
  } catch (thrown) {
    const error = CoveyError.from(thrown);
    return { code: error.code, message: error.message, exit: exitCodeOf(error) };
  }
}

const JUDGED_BY_TEST = ['probe', 'finetune', 'compare'] as const;
const LEARNERS = [...JUDGED_BY_TEST, 'domain'] as const;
const ALL = ['embed', ...LEARNERS] as const;

interface Refusal {
  readonly data: string;
  readonly commands: readonly CommandName[];
  readonly more?: readonly string[];
  /** What is wrong, and what to do. */
  readonly says: RegExp;
}

const REFUSALS: readonly Refusal[] = [
  { data: 'without samples', commands: ALL, says: /has no samples; pack it again/ },
  { data: 'with a shard without samples', commands: ALL, says: /has no samples; pack it again/ },
  {
    data: 'without labels',
    commands: LEARNERS,
    says: /none of the 12 samples .* has a `label`; pack it with labels, or name a key.*--label-key/,
  },
  { data: 'with one class', commands: LEARNERS, says: /a single class, red; at least two are needed/ },
  {
    data: 'with one picture per class',
    commands: LEARNERS,
    says: /3 of 3 classes are left for training and 0 for validation; label more/,
  },
  { data: 'of broken pictures', commands: LEARNERS, says: /none of its 12 pictures can be read.*pack it again/ },
  { data: 'of broken pictures', commands: ['embed'], says: /none of its 12 pictures can be read.*pack it again/ },
  {
    data: 'with another class',
    commands: LEARNERS,
    more: ['--classes', 'CLASSES'],
    says: /1 labels are not among the 3 classes: .* is 'violet'; mend the labels or the list of classes/,
  },
  {
    data: 'good',
    commands: JUDGED_BY_TEST,
    more: ['--test', 'with another class'],
    says: /1 labels are not among the 3 classes: .* is 'violet'/,
  },
  {
    data: 'good',
    commands: JUDGED_BY_TEST,
    more: ['--test', 'without labels'],
    says: /none of the 12 samples .* has a `label`/,
  },
  {
    data: 'good',
    commands: JUDGED_BY_TEST,
    more: ['--test', 'of broken pictures'],
    says: /none of its 12 pictures can be read/,
  },
  {
    data: 'good',
    commands: LEARNERS,
    more: ['--classes', 'NONE'],
    says: /Cannot read the classes .*: ENOENT; there is no such file/,
  },
  { data: 'good', commands: ['domain'], more: ['--target', 'without samples'], says: /has no samples; pack it again/ },
  {
    data: 'good',
    commands: ['domain'],
    more: ['--target', 'of broken pictures'],
    says: /none of its 12 pictures can be read/,
  },
];

/** Names of datasets and files in options as their places. */
function placed(one: string): string {
  if (one.startsWith('--')) return one;
  if (one === 'CLASSES') return inFolder('classes.txt');
  return one === 'NONE' ? inFolder('none.txt') : manifestOf(one);
}

describe.each(REFUSALS)('a dataset $data $more', ({ data, commands, more = [], says }) => {
  it.each(commands)('is refused by %s, with what to do', async (command) => {
    const found = await outcome(command, data, ...more.map(placed));
    expect(found).toMatchObject({ message: expect.stringMatching(says) });
    const { code, exit } = found as { code: string; exit: number };
    expect(exit).toBe(code === 'NOT_FOUND' ? EXIT.failed : EXIT.usage);
  });
});

describe('a dataset with two broken pictures, a class of one picture and a sample without label', () => {
  it.each(ALL)('is taken by %s, which says what it left out', async (command) => {
    const found = await outcome(command, 'with two broken pictures, a lonely class and one without label');
    expect(found).toMatchObject({ said: expect.stringMatching(/0\.tar\/0 left out: .*\n.*0\.tar\/1 left out: /s) });
    const unlabelled = (found as { said: string }).said.match(/1 of 13 samples have no label: left out/g) ?? [];
    expect(unlabelled).toHaveLength(command === 'embed' ? 0 : 1);
    if (command === 'probe' || command === 'finetune')
      expect(found).toMatchObject({ result: { classes: 4, train: 7, validation: 3 } });
  });
});
