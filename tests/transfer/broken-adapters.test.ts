import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Engine, loadEngine } from '../../engine/index.ts';
import { readSafetensors, writeSafetensors } from '../../models/formats/safetensors.ts';
import {
  type AdapterFile,
  adapterFileOf,
  expectBackbone,
  putAdapter,
  readAdapterFile,
  writeAdapterFile,
} from '../../transfer/adapters/adapter-file.ts';
import { TransferNetwork } from '../../transfer/network.ts';
import { readProgress } from '../../transfer/tune/progress-file.ts';
import { smallBackbone } from './small-backbone.ts';

const ADAPTER = { kind: 'lora', rank: 2, alpha: 4, targets: 'all' } as const;
const CLASSES = ['a', 'b', 'c'];

let engine: Engine;
let folder: string;
let file: string;
let network: TransferNetwork;

const networkOf = (classes: number) =>
  new TransferNetwork(smallBackbone(), { classes, adapter: ADAPTER, seed: 1, precision: 'fp32' });

beforeAll(async () => {
  engine = await loadEngine({ engine: 'auto', device: 'cpu', threads: 1 });
  folder = await mkdtemp(path.join(tmpdir(), 'covey-adapters-'));
  file = path.join(folder, 'adapter.safetensors');
  network = networkOf(CLASSES.length);
  await writeAdapterFile(file, adapterFileOf(network, ADAPTER, CLASSES));
});
afterAll(async () => {
  network.dispose();
  engine.close();
  await rm(folder, { recursive: true });
});

/** The file with another description, or other bytes. */
async function altered(change: (bytes: Buffer) => Uint8Array): Promise<string> {
  const other = path.join(folder, 'altered.safetensors');
  await writeFile(other, change(await readFile(file)));
  return other;
}

const described = (more: Readonly<Record<string, string>>) => (bytes: Buffer) => {
  const { tensors, metadata } = readSafetensors(bytes);
  return writeSafetensors(tensors, { ...metadata, ...more });
};

describe('an adapter’s file that is not one', () => {
  it.each([
    ['cut short', (bytes: Buffer) => bytes.subarray(0, bytes.length - 9), /end|size|bytes|short|beyond/i],
    ['of something else', described({ covey: 'head' }), /a safetensors file of something else/],
    [
      'with a kind of adapter that there is not',
      described({ options: '{"kind":"prefix"}' }),
      /its description is broken/,
    ],
    ['with classes that are no list', described({ classes: '{' }), /its description is broken/],
  ])('%s is refused', async (_what, change, says) => {
    await expect(altered(change).then(readAdapterFile)).rejects.toMatchObject({
      code: 'DATA_CORRUPT',
      message: expect.stringMatching(says),
    });
  });

  it('that is missing is told as that', async () => {
    await expect(readAdapterFile(path.join(folder, 'none'))).rejects.toMatchObject({
      code: 'NOT_FOUND',
      message: expect.stringContaining('Cannot read the adapter'),
    });
  });
});

describe('an adapter that does not fit', () => {
  let whole: AdapterFile;
  beforeAll(async () => {
    whole = await readAdapterFile(file);
  });

  it('is told from which backbone it is', () => {
    expect(() => expectBackbone(whole, smallBackbone(4))).toThrow(/it was trained in a test .*choose that checkpoint/);
    expect(() => expectBackbone(whole, smallBackbone())).not.toThrow();
  });

  it('is not taken where it lacks a layer, has one too many, or a head for other classes, and nothing is changed', () => {
    const before = network.read();
    const [first] = whole.tensors.keys();
    const without = new Map([...whole.tensors].filter(([name]) => name !== first));
    expect(() => putAdapter(network, { ...whole, tensors: without })).toThrow(`${first} is missing`);
    const more = new Map([...whole.tensors, ['adapter.more', { shape: [1], values: Float32Array.of(1) }] as const]);
    expect(() => putAdapter(network, { ...whole, tensors: more })).toThrow('adapter.more is none of its layers');
    const four = networkOf(4);
    expect(() => putAdapter(four, whole)).toThrow(/head.weight is \[3,32\], not \[4,32\]/);
    four.dispose();
    expect(network.read()).toEqual(before);
  });
});

it('progress of something else is not gone on with', async () => {
  await expect(readProgress(file)).rejects.toMatchObject({
    code: 'DATA_CORRUPT',
    message: expect.stringMatching(/it is not the progress of a fine-tuning; delete it/),
  });
});
