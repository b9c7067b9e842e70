import { describe, expect, it } from 'vitest';
import { systemClock } from '../../common/clock.ts';
import { CoveyError } from '../../common/errors.ts';
import { MemoryStore } from '../../common/objectstore/memory-store.ts';
import type { ObjectStore } from '../../common/objectstore/object-store.ts';
import { RandomStream } from '../../common/random.ts';
import { blobKey } from '../../worker/checkpoint/checkpoint-format.ts';
import {
  listCheckpoints,
  newestVerified,
  pruneCheckpoints,
  verifyCheckpoint,
} from '../../worker/checkpoint/checkpoint-registry.ts';
import { readBuffers, readCheckpointInto, readManifest, readWeights } from '../../worker/checkpoint/read-checkpoint.ts';
import { type CheckpointFacts, writeCheckpoint } from '../../worker/checkpoint/write-checkpoint.ts';
import { type StateLayout, StateView, stateBytes } from '../../worker/train/state-layout.ts';

const PARAMETERS = [
  { name: 'visual.proj', shape: [3, 4] },
  { name: 'ln_final.bias', shape: [5] },
  { name: 'logit_scale', shape: [] },
];
const LAYOUT = { parameterFloats: 18, bufferFloats: 0, stateSections: ['weights', 'firstMoments', 'secondMoments'] };

function facts(generation = 1): CheckpointFacts {
  const sha = 'ab'.repeat(32);
  return { run: 'r', generation, seed: 1, configSha256: sha, datasetSha256: sha, parameters: PARAMETERS };
}

function stateAt(step: number, layout: StateLayout = LAYOUT): StateView {
  const view = new StateView(new SharedArrayBuffer(stateBytes(layout)), layout);
  const random = new RandomStream('state', step);
  for (const part of layout.stateSections.map((name) => view.section(name)))
    part.forEach((_, i) => {
      part[i] = random.normal();
    });
  view.writeHeader({ step, optimizerStep: step - 1, skippedSteps: 1 });
  return view;
}

function newStore(): MemoryStore {
  return new MemoryStore({ url: 'memory://checkpoint-test', objects: new Map() }, { clock: systemClock });
}

/** A store that dies (as a killed process would) after `writesLeft` more writes. */
function dyingStore(inner: ObjectStore, writesLeft: number): ObjectStore {
  let left = writesLeft;
  return new Proxy(inner, {
    get(target, property, receiver) {
      const value = Reflect.get(target, property, receiver);
      if (property !== 'put') return typeof value === 'function' ? value.bind(target) : value;
      return async (...parameters: Parameters<ObjectStore['put']>) => {
        if (left-- <= 0) throw new CoveyError('UNAVAILABLE', 'killed');
        return target.put(...parameters);
      };
    },
  });
}

describe('checkpoints', () => {
  it('come back bit for bit', async () => {
    const store = newStore();
    const state = stateAt(40);
    const written = await writeCheckpoint(state, facts(), { store, clock: systemClock });
    const manifest = await readManifest(store, written.manifestKey, { sha256: written.manifestSha256 });
    const back = new StateView(new SharedArrayBuffer(stateBytes(LAYOUT)), LAYOUT);
    await readCheckpointInto(back, manifest, store);
    expect(back.bytes).toEqual(state.bytes);
  });

  it.each([[['weights', 'momentum']], [['weights', 'firstMoments', 'secondMoments', 'ema']], [['weights']]])(
    'come back bit for bit whatever the optimiser remembers: %s',
    async (stateSections) => {
      const store = newStore();
      const layout = { ...LAYOUT, stateSections };
      const state = stateAt(40, layout);
      const written = await writeCheckpoint(state, facts(), { store, clock: systemClock });
      const manifest = await readManifest(store, written.manifestKey);
      expect(Object.keys(manifest.blobs)).toEqual(stateSections);
      const back = new StateView(new SharedArrayBuffer(stateBytes(layout)), layout);
      await readCheckpointInto(back, manifest, store);
      expect(back.bytes).toEqual(state.bytes);
      expect(await newestVerified(store, 'r')).toMatchObject({ step: 40, ok: true });
    },
  );

  it('carry the buffers of the model, of a size of their own', async () => {
    const store = newStore();
    const layout = { ...LAYOUT, bufferFloats: 7, stateSections: [...LAYOUT.stateSections, 'buffers'] };
    const state = stateAt(40, layout);
    const buffers = [
      { name: 'queue', shape: [2, 3] },
      { name: 'count', shape: [] },
    ];
    const written = await writeCheckpoint(state, { ...facts(), buffers }, { store, clock: systemClock });
    const manifest = await readManifest(store, written.manifestKey);
    const back = new StateView(new SharedArrayBuffer(stateBytes(layout)), layout);
    await readCheckpointInto(back, manifest, store);
    expect(back.bytes).toEqual(state.bytes);
    const read = await readBuffers(store, manifest);
    expect(read.get('queue')!.values).toEqual(state.section('buffers').slice(0, 6));
    expect((await readBuffers(store, { ...manifest, blobs: { weights: manifest.blobs.weights } })).size).toBe(0);
    const larger = { ...layout, bufferFloats: 8 };
    const other = new StateView(new SharedArrayBuffer(stateBytes(larger)), larger);
    await expect(readCheckpointInto(other, manifest, store)).rejects.toMatchObject({ code: 'DATA_CORRUPT' });
  });

  it('are refused by a run whose optimiser remembers something else, and so is the block itself', async () => {
    const store = newStore();
    const state = stateAt(40);
    const written = await writeCheckpoint(state, facts(), { store, clock: systemClock });
    const manifest = await readManifest(store, written.manifestKey);
    const layout = { ...LAYOUT, stateSections: ['weights', 'momentum'] };
    const other = new StateView(new SharedArrayBuffer(stateBytes(layout)), layout);
    await expect(readCheckpointInto(other, manifest, store)).rejects.toThrow(
      /holds weights, firstMoments, secondMoments, this optimiser needs weights, momentum/,
    );
    const taken = new StateView(state.buffer, {
      ...LAYOUT,
      stateSections: ['weights', 'secondMoments', 'firstMoments'],
    });
    expect(() => taken.readHeader()).toThrow(/not one of this model and optimiser/);
  });

  it('hand out the last weights or their average, and say so where there is none', async () => {
    const store = newStore();
    const layout = { ...LAYOUT, stateSections: ['weights', 'momentum', 'ema'] };
    const state = stateAt(40, layout);
    const written = await writeCheckpoint(state, facts(), { store, clock: systemClock });
    const manifest = await readManifest(store, written.manifestKey);
    const proj = async (kind: 'last' | 'ema') => (await readWeights(store, manifest, kind)).get('visual.proj')!.values;
    expect(await proj('last')).toEqual(state.section('weights').slice(0, 12));
    expect(await proj('ema')).toEqual(state.section('ema').slice(0, 12));
    const plain = await writeCheckpoint(stateAt(50), facts(), { store, clock: systemClock });
    const without = await readManifest(store, plain.manifestKey);
    await expect(readWeights(store, without, 'ema')).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  it('are refused when any byte of any blob is flipped, or a blob is gone', async () => {
    const store = newStore();
    const written = await writeCheckpoint(stateAt(40), facts(), { store, clock: systemClock });
    const manifest = await readManifest(store, written.manifestKey);
    const [listed] = await listCheckpoints(store, 'r');
    expect(await verifyCheckpoint(store, listed!)).toMatchObject({ ok: true });
    for (const hash of Object.values(manifest.blobs)) {
      const key = blobKey('r', hash);
      const { bytes } = await store.get(key);
      for (const at of [0, 100, bytes.length - 1]) {
        const flipped = Uint8Array.from(bytes);
        flipped[at]! ^= 4;
        await store.put(key, flipped);
        const into = new StateView(new SharedArrayBuffer(stateBytes(LAYOUT)), LAYOUT);
        await expect(readCheckpointInto(into, manifest, store)).rejects.toMatchObject({ code: 'DATA_CORRUPT' });
        expect(await verifyCheckpoint(store, listed!)).toMatchObject({ ok: false });
      }
      await store.delete(key);
      expect(await verifyCheckpoint(store, listed!)).toMatchObject({ ok: false });
      await store.put(key, bytes);
    }
  });

  it('killed at any write leave the one before as the newest that verifies', async () => {
    for (let writes = 0; writes <= 3; writes++) {
      const store = newStore();
      await writeCheckpoint(stateAt(10), facts(), { store, clock: systemClock });
      const dying = writeCheckpoint(stateAt(20), facts(), { store: dyingStore(store, writes), clock: systemClock });
      await expect(dying).rejects.toMatchObject({ code: 'UNAVAILABLE' });
      expect(await newestVerified(store, 'r')).toMatchObject({ step: 10, ok: true });
      // And the step can be stored again over what was left.
      await writeCheckpoint(stateAt(20), facts(), { store, clock: systemClock });
      expect(await newestVerified(store, 'r')).toMatchObject({ step: 20, ok: true });
    }
  });

  it('are pruned to the last k and the protected ones, without touching a blob still named', async () => {
    const store = newStore();
    const keys: string[] = [];
    for (const step of [10, 20, 30, 40]) {
      keys.push((await writeCheckpoint(stateAt(step), facts(), { store, clock: systemClock })).manifestKey);
    }
    // Step 50 has the same weights as step 40: the blobs are shared.
    const same = stateAt(40);
    same.writeHeader({ step: 50, optimizerStep: 49, skippedSteps: 1 });
    await writeCheckpoint(same, facts(), { store, clock: systemClock });
    const clock = { ...systemClock, now: () => Date.now() + 3_600_000 };
    const options = { keepLast: 1, protectedKeys: [keys[1]!], blobGraceMs: 60_000 };
    const report = await pruneCheckpoints({ store, clock }, 'r', options);
    expect(report.removedCheckpoints).toEqual([keys[0], keys[2], keys[3]]);
    expect(report.removedBlobs).toHaveLength(6);
    const left = await listCheckpoints(store, 'r');
    expect(left.map((one) => one.step)).toEqual([20, 50]);
    for (const one of left) expect(await verifyCheckpoint(store, one)).toMatchObject({ ok: true });
  });

  it('spare unreferenced blobs that are still young, for they may be part of one in the making', async () => {
    const store = newStore();
    await expect(
      writeCheckpoint(stateAt(20), facts(), { store: dyingStore(store, 2), clock: systemClock }),
    ).rejects.toThrow();
    await writeCheckpoint(stateAt(30), facts(), { store, clock: systemClock });
    const prune = (aheadMs: number) =>
      pruneCheckpoints({ store, clock: { ...systemClock, now: () => Date.now() + aheadMs } }, 'r', {
        keepLast: 1,
        protectedKeys: [],
        blobGraceMs: 60_000,
      });
    expect((await prune(0)).removedBlobs).toHaveLength(0);
    expect((await prune(120_000)).removedBlobs).toHaveLength(2);
  });
});
