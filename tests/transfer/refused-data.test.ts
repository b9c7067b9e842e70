import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Command } from 'commander';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { addAdapterCommand } from '../../cli/commands/adapter.ts';
import { addCompareCommand } from '../../cli/commands/compare.ts';
import { addDomainCommand } from '../../cli/commands/domain.ts';
import { addEmbedCommand } from '../../cli/commands/embed.ts';
import { addFinetuneCommand } from '../../cli/commands/finetune.ts';
import { addProbeCommand } from '../../cli/commands/probe.ts';
import { addPromptsCommand } from '../../cli/commands/prompts.ts';
import { addZeroShotCommand } from '../../cli/commands/zeroshot.ts';
import type { CommandContext } from '../../cli/context.ts';
import { EXIT, exitCodeOf } from '../../cli/exit-codes.ts';
import { type BackboneOptions, openBackbone } from '../../cli/transfer/backbone-options.ts';
import { compareBackbone } from '../../cli/transfer/compare.ts';
import { domain } from '../../cli/transfer/domain.ts';
import { embed } from '../../cli/transfer/embed.ts';
import { type AdapterEvalOptions, evaluateAdapters } from '../../cli/transfer/evaluate-adapters.ts';
import { finetune } from '../../cli/transfer/finetune.ts';
import { probe } from '../../cli/transfer/probe.ts';
import { promptsCommand } from '../../cli/transfer/prompts.ts';
import { TransferSession } from '../../cli/transfer/session.ts';
import { exportBackbone } from '../../cli/transfer/tuned-files.ts';
import { zeroShotCommand } from '../../cli/transfer/zero-shot.ts';
import { CoveyError } from '../../common/errors.ts';
import { loadEngine } from '../../engine/index.ts';
import { COVEY_WEIGHTS, exportCovey } from '../../models/formats/covey-format.ts';
import { adapterFileOf, writeAdapterFile } from '../../transfer/adapters/adapter-file.ts';
import { TransferNetwork } from '../../transfer/network.ts';
import { commandContext } from '../support/command-context.ts';
import { fileStore, makeDataset } from '../support/datasets.ts';
import { folderContents } from '../support/folder-contents.ts';
import { parsedCommand } from '../support/parsed-command.ts';
import { smallClip } from './joint-models.ts';
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

const half = (bytes: Buffer) => bytes.subarray(0, bytes.length / 2);
const SPOILT_SHARDS: Readonly<Record<string, (bytes: Buffer) => Buffer>> = {
  'cut short': half,
  'with a flipped bit': (bytes) => {
    bytes[700]! ^= 1;
    return bytes;
  },
};

/** An image tower and another one, a CLIP and one whose file is cut short, an adapter and half of it. */
async function makeModels(): Promise<void> {
  await exportBackbone(inFolder('backbone'), smallBackbone());
  await exportBackbone(inFolder('other'), smallBackbone(9));
  await exportCovey(inFolder('clip'), await smallClip());
  await cp(inFolder('clip'), inFolder('cut'), { recursive: true });
  const weights = inFolder('cut', COVEY_WEIGHTS);
  await writeFile(weights, half(await readFile(weights)));
  const engine = await loadEngine({ engine: 'auto', threads: 1 });
  const adapter = { kind: 'lora', rank: 2, alpha: 4, targets: 'all' } as const;
  const { backbone } = await openBackbone(commandContext(), inFolder('backbone'), { weights: 'last' });
  const network = new TransferNetwork(backbone, { classes: 3, adapter, seed: 1, precision: 'fp32' });
  const file = inFolder('adapter.safetensors');
  await writeAdapterFile(file, adapterFileOf(network, adapter, ['blue', 'green', 'red']));
  await writeFile(inFolder('cut.safetensors'), half(await readFile(file)));
  network.dispose();
  engine.close();
}

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'covey-refused-'));
  const samples = await colouredSamples(4);
  for (const [name, shards] of Object.entries(DATASETS)) {
    await makeDataset(fileStore(inFolder(name)), shards(samples) as readonly (readonly Sample[])[]);
  }
  const texts = { classes: 'blue\ngreen\nred\n', empty: ' \n', wordless: 'a {}\na photo\n' };
  for (const [name, text] of Object.entries(texts)) await writeFile(inFolder(`${name}.txt`), text);
  await makeModels();
  for (const [name, spoil] of Object.entries(SPOILT_SHARDS)) {
    await cp(inFolder('good'), inFolder(name), { recursive: true });
    await writeFile(inFolder(name, '0.tar'), spoil(await readFile(inFolder('good', '0.tar'))));
  }
  // Nothing that covey packs, and still met: somebody's own tool, or a manifest mended by hand.
  const manifest = JSON.parse(await readFile(inFolder('good', 'manifest.json'), 'utf8')) as { shards: object[] };
  const emptied = { 'without samples': [], 'with a shard without samples': [{ ...manifest.shards[0], samples: 0 }] };
  for (const [name, shards] of Object.entries(emptied)) {
    await mkdir(inFolder(name));
    await writeFile(inFolder(name, 'manifest.json'), JSON.stringify({ ...manifest, sampleCount: 0, shards }));
  }
});
afterAll(() => rm(folder, { recursive: true, force: true }));

type Body = (context: CommandContext, source: string, options: never) => Promise<unknown>;

interface TestedCommand {
  readonly add: (program: Command) => void;
  readonly body: Body;
  readonly small: readonly string[];
  /** The model's folder. Default: an image tower. */
  readonly model?: string;
}

const inSession =
  (body: (session: TransferSession, source: string, options: never) => Promise<object>): Body =>
  (context, source, options) =>
    TransferSession.run(context, options, (session) => body(session, source, options));

/** As `covey adapter eval` has it. */
const evaluate: Body = inSession(async (session, source, options: BackboneOptions & AdapterEvalOptions) => {
  const { backbone } = await openBackbone(session.context, source, options);
  return evaluateAdapters(session, backbone, options);
});

const TUNE = ['--steps', '2', '--batch', '4', '--evaluate-every', '1'];
type CommandName = 'embed' | 'probe' | 'finetune' | 'compare' | 'domain' | 'zeroshot' | 'prompts' | 'adapter eval';
const COMMANDS: Readonly<Record<CommandName, TestedCommand>> = {
  embed: { add: addEmbedCommand, body: inSession(embed), small: [] },
  probe: { add: addProbeCommand, body: inSession(probe), small: [] },
  finetune: { add: addFinetuneCommand, body: inSession(finetune), small: TUNE },
  compare: { add: addCompareCommand, body: inSession(compareBackbone), small: [...TUNE, '--fractions', '1'] },
  domain: { add: addDomainCommand, body: inSession(domain), small: TUNE },
  zeroshot: { add: addZeroShotCommand, body: zeroShotCommand, small: [], model: 'clip' },
  prompts: { add: addPromptsCommand, body: promptsCommand, small: ['--templates', 'icons'], model: 'clip' },
  'adapter eval': { add: addAdapterCommand, body: evaluate, small: [] },
};

/** What a command says of some data: its error with the exit code, or its result and all that was said. */
async function outcome(command: CommandName, data: string, more: readonly string[] = [], model?: string) {
  const context = commandContext();
  const { add, body, small, model: usual = 'backbone' } = COMMANDS[command];
  // Of two domains the labelled one is looked at; the other is in order, unless something else is asked for.
  const place =
    command === 'domain'
      ? ['--source', manifestOf(data), '--target', manifestOf('good')]
      : ['--data', manifestOf(data)];
  const out = inFolder(`out-${outputs++}`);
  const adapter =
    command === 'adapter eval' && !more.includes('--adapter') ? ['--adapter', inFolder('adapter.safetensors')] : [];
  const given = [...place, '-o', out, '--threads', '1', ...small, ...adapter, ...more];
  const { options } = await parsedCommand(add, [...command.split(' '), 'model', ...given]);
  // What lies there already is not lost.
  await mkdir(out);
  await writeFile(path.join(out, 'notes.txt'), 'kept');
  const before = await folderContents(out);
  try {
    const result = await body(context, inFolder(model ?? usual), options as never);
    return { result, said: context.said() };
  } catch (thrown) {
    const error = CoveyError.from(thrown);
    const left = await folderContents(out);
    for (const [name, content] of before) expect(left.get(name)).toEqual(content);
    expect([...left.keys()].filter((name) => /\.part|\.html$/.test(name))).toEqual([]);
    return { code: error.code, message: error.message, exit: exitCodeOf(error) };
  }
}

const JUDGED_BY_TEST = ['probe', 'finetune', 'compare'] as const;
const LEARNERS = [...JUDGED_BY_TEST, 'domain'] as const;
const ALL = ['embed', ...LEARNERS] as const;
const BY_TEXTS = ['zeroshot', 'prompts'] as const;
const EVERY = [...ALL, ...BY_TEXTS, 'adapter eval'] as const;

interface Refusal {
  readonly data: string;
  readonly commands: readonly CommandName[];
  readonly more?: readonly string[];
  /** Another model than is usual for the command. */
  readonly model?: string;
  /** What is wrong, and what to do. */
  readonly says: RegExp;
}

const REFUSALS: readonly Refusal[] = [
  {
    data: 'that is not there',
    commands: EVERY,
    says: /Cannot read manifest\.json: no such object in file:.*that%20is%20not%20there/,
  },
  { data: 'cut short', commands: EVERY, says: /Cannot use shard 0\.tar: .*; restore or pack it again/ },
  { data: 'with a flipped bit', commands: EVERY, says: /Cannot use shard 0\.tar: .*; restore or pack it again/ },
  { data: 'without samples', commands: EVERY, says: /has no samples; pack it again/ },
  { data: 'with a shard without samples', commands: EVERY, says: /has no samples; pack it again/ },
  {
    data: 'without labels',
    commands: [...LEARNERS, 'adapter eval'],
    says: /none of the 12 samples .* has a `label`; pack it with labels, or name a key.*--label-key/,
  },
  { data: 'with one class', commands: [...LEARNERS, 'prompts'], says: /a single class, red; at least two are needed/ },
  {
    data: 'with one picture per class',
    commands: LEARNERS,
    says: /3 of 3 classes are left for training and 0 for validation; label more/,
  },
  {
    data: 'of broken pictures',
    commands: [...ALL, 'adapter eval'],
    says: /none of its 12 pictures can be read.*pack it again/,
  },
  {
    data: 'of broken pictures',
    commands: ['prompts'],
    says: /none of the 12 labelled ones can be read; .* pack it again/,
  },
  {
    data: 'with another class',
    commands: ['adapter eval'],
    says: /1 labels are not among the 3 classes: .* is 'violet'; mend the labels or the list of classes/,
  },
  {
    data: 'with another class',
    commands: [...LEARNERS, 'prompts'],
    more: ['--classes', 'classes.txt'],
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
    more: ['--classes', 'none.txt'],
    says: /Cannot read the classes .*: ENOENT; there is no such file/,
  },
  {
    data: 'good',
    commands: BY_TEXTS,
    more: ['--classes', 'none.txt'],
    says: /Cannot read .*none\.txt: there is no such file; name a file with a class per line/,
  },
  {
    data: 'good',
    commands: [...LEARNERS, 'prompts'],
    more: ['--classes', 'empty.txt'],
    says: /Cannot use the classes of .*empty\.txt: there is no class in it; write a name per line/,
  },
  {
    data: 'good',
    commands: BY_TEXTS,
    more: ['--templates', 'wordless.txt'],
    says: /Cannot use the templates of .*wordless\.txt, line 2: it has no \{\} for the class: "a photo"/,
  },
  {
    data: 'good',
    commands: ['adapter eval'],
    model: 'other',
    says: /it was trained in .*; choose that checkpoint with --step/,
  },
  {
    data: 'good',
    commands: ['adapter eval'],
    more: ['--adapter', 'adapter.safetensors', '--adapter', 'cut.safetensors'],
    says: /Cannot read .*cut\.safetensors: the tensors do not end where the file ends .*; fetch or export the file again/,
  },
  {
    data: 'good',
    commands: ['adapter eval'],
    more: ['--adapter', 'none.safetensors'],
    says: /Cannot read the adapter .*none\.safetensors/,
  },
  {
    data: 'good',
    commands: BY_TEXTS,
    model: 'cut',
    says: /Cannot read .*cut.*: the tensors do not end where the file ends/,
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
  return path.extname(one) === '' ? manifestOf(one) : inFolder(one);
}

describe.each(REFUSALS)(
  'a dataset $data, options $more, model $model',
  ({ data, commands, more = [], model, says }) => {
    it.each(commands)('is refused by %s, with what to do', async (command) => {
      const found = await outcome(command, data, more.map(placed), model);
      expect(found).toMatchObject({ message: expect.stringMatching(says) });
      const { code, exit } = found as { code: string; exit: number };
      expect(exit).toBe(code === 'NOT_FOUND' || code === 'DATA_CORRUPT' ? EXIT.failed : EXIT.usage);
    });
  },
);

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
