import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RandomStream } from '../../common/random.ts';
import { type Engine, loadEngine, tf } from '../../engine/index.ts';
import type { AdapterOptions } from '../../transfer/adapters/adapter.ts';
import {
  adaptedNetwork,
  adapterFileOf,
  expectBackbone,
  readAdapterFile,
  writeAdapterFile,
} from '../../transfer/adapters/adapter-file.ts';
import { TransferNetwork } from '../../transfer/network.ts';
import { randomPixels, smallBackbone } from './small-backbone.ts';

let engine: Engine;
let folder: string;
beforeAll(async () => {
  engine = await loadEngine({ engine: 'auto', device: 'cpu', threads: 1 });
  folder = await mkdtemp(path.join(tmpdir(), 'covey-adapters-'));
});
afterAll(async () => {
  engine.close();
  await rm(folder, { recursive: true });
});

const LORA: AdapterOptions = { kind: 'lora', rank: 3, alpha: 6, targets: 'all' };
const BOTTLENECK: AdapterOptions = { kind: 'bottleneck', width: 4 };

/** Features and logits of four pictures. */
function outputs(network: TransferNetwork): Float32Array {
  return tf.tidy(() => {
    const pixels = randomPixels(4);
    const all = [network.features(pixels), network.logits(pixels)];
    return tf.concat(all.map((one) => one.flatten())).dataSync<'float32'>();
  }) as unknown as Float32Array;
}

/** Moves every parameter of the adapter away from its start, as training would. */
function disturb(network: TransferNetwork): void {
  const stream = new RandomStream('disturb');
  const moved = network.read((name) => name.startsWith('adapter.'));
  for (const { values } of moved.values()) for (let i = 0; i < values.length; i++) values[i]! += stream.normal(0, 0.1);
  network.write(moved);
}

function largestDifference(a: Float32Array, b: Float32Array): number {
  return a.reduce((worst, value, i) => Math.max(worst, Math.abs(value - b[i]!)), 0);
}

const make = (adapter?: AdapterOptions) =>
  new TransferNetwork(smallBackbone(), { classes: 3, seed: 5, precision: 'fp32', ...(adapter ? { adapter } : {}) });

describe('adapters of a transformer', () => {
  it.each([LORA, BOTTLENECK])('begin as the identity, bit for bit: $kind', (options) => {
    const plain = make();
    const adapted = make(options);
    expect(outputs(adapted)).toEqual(outputs(plain));
    disturb(adapted);
    expect(largestDifference(outputs(adapted), outputs(plain))).toBeGreaterThan(1e-3);
    plain.dispose();
    adapted.dispose();
  });

  it('add D·M parameters a layer (bottleneck), or rank times both sides (LoRA), and give their tensors back', () => {
    const before = tf.memory().numTensors;
    const own = (network: TransferNetwork) =>
      [...network.read((name) => name.startsWith('adapter.')).values()].reduce((sum, t) => sum + t.values.length, 0);
    const bottleneck = make(BOTTLENECK);
    // Two blocks, two places: down 4×32 + 4, up 32×4 + 32.
    expect(own(bottleneck)).toBe(4 * (4 * 32 + 4 + 32 * 4 + 32));
    const lora = make(LORA);
    // in_proj 96×32, out_proj 32×32, c_fc 64×32, c_proj 32×64.
    expect(own(lora)).toBe(2 * 3 * (96 + 32 + 32 + 32 + 64 + 32 + 32 + 64));
    bottleneck.dispose();
    lora.dispose();
    expect(tf.memory().numTensors).toBe(before);
  });

  it('merge into the weights (LoRA) with outputs within 1e-5; layers of their own are refused', () => {
    const adapted = make(LORA);
    disturb(adapted);
    const merged = adapted.mergedBackbone('merged');
    expect(merged.digest).not.toBe(adapted.source.digest);
    const plain = new TransferNetwork(merged, { classes: 3, seed: 5, precision: 'fp32' });
    expect(largestDifference(outputs(adapted), outputs(plain))).toBeLessThan(1e-5);
    plain.dispose();
    adapted.dispose();
    const bottleneck = make(BOTTLENECK);
    expect(() => bottleneck.mergedBackbone('merged')).toThrow(/layers of their own/);
    bottleneck.dispose();
  });

  it('come back from their file, which holds nothing of the frozen backbone', async () => {
    const adapted = make(BOTTLENECK);
    disturb(adapted);
    const file = path.join(folder, 'task.safetensors');
    await writeAdapterFile(file, adapterFileOf(adapted, BOTTLENECK, ['a', 'b', 'c']));
    const read = await readAdapterFile(file);
    expect(read.options).toEqual(BOTTLENECK);
    expect(read.classes).toEqual(['a', 'b', 'c']);
    const kept = [...read.tensors.keys()].filter((name) => name.startsWith('visual.'));
    expect(kept.length).toBeGreaterThan(0);
    expect(kept.every((name) => /\.ln_(pre|post|1|2)\./.test(name))).toBe(true);
    const fresh = make(read.options);
    fresh.write(read.tensors);
    expect(outputs(fresh)).toEqual(outputs(adapted));
    expect(() => expectBackbone(read, smallBackbone())).not.toThrow();
    expect(() => expectBackbone(read, smallBackbone(4))).toThrow(/it was trained in a test/);
    fresh.dispose();
    adapted.dispose();
  });

  it('give the same bits beside each other on one backbone as each alone, and leave the backbone as it is', () => {
    const before = tf.memory().numTensors;
    const source = smallBackbone();
    const files = [BOTTLENECK, LORA, { ...BOTTLENECK, width: 6 }].map((options) => {
      const trained = make(options);
      disturb(trained);
      // A bottleneck's layer norms are its own.
      const norms = trained.read((name) => name.includes('ln_1') && trained.adapter!.trainsToo(name));
      for (const { values } of norms.values()) for (let i = 0; i < values.length; i++) values[i]! += 0.1;
      trained.write(norms);
      const file = adapterFileOf(trained, options, ['a', 'b', 'c']);
      const expected = outputs(trained);
      trained.dispose();
      return { file, expected };
    });
    const bare = new TransferNetwork(source, { seed: 0, precision: 'fp32' });
    const features = () => tf.tidy(() => bare.features(randomPixels(4)).dataSync<'float32'>());
    const [plain, alone] = [features(), tf.memory().numTensors];
    const networks = files.map(({ file }) => adaptedNetwork(file, source, bare));
    const own = files.reduce((sum, { file }) => sum + file.tensors.size, 0);
    expect(tf.memory().numTensors - alone).toBe(own);
    for (let round = 0; round < 2; round++) {
      for (const [i, network] of networks.entries()) expect(outputs(network)).toEqual(files[i]!.expected);
    }
    networks[0]!.dispose();
    expect(outputs(networks[2]!)).toEqual(files[2]!.expected);
    expect(features()).toEqual(plain);
    for (const network of [...networks.slice(1), bare]) network.dispose();
    expect(tf.memory().numTensors).toBe(before);
  });

  it('are refused where they have no place', () => {
    expect(() => make({ kind: 'conv', placement: 'series' })).toThrow(/conv adapters need a ResNet/);
  });
});
