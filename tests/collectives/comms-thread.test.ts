import { existsSync } from 'node:fs';
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import { afterEach, describe, expect, it } from 'vitest';
import { packageRoot } from '../../common/built-module.ts';
import { CoveyError } from '../../common/errors.ts';
import { silentLogger } from '../../common/log.ts';
import { findNatsServer, startNatsServer } from '../../common/nats-server.ts';
import type { CommsThread } from '../../worker/collectives/comms-channel.ts';
import { startCommsThread } from '../../worker/collectives/comms-channel.ts';
import {
  evenGroup,
  lanePartials,
  laneVectors,
  sameBytes,
  serialTreeSum,
  shared,
  sharedBytes,
} from '../support/collectives-cases.ts';

const built = existsSync(path.join(packageRoot(), 'dist/worker/collectives/comms-thread.js'));
const reason = !findNatsServer()
  ? ' (skipped: nats-server is not installed)'
  : built
    ? ''
    : ' (skipped: covey is not built)';

interface Outcome {
  readonly ok: boolean;
  readonly code?: string;
  readonly message?: string;
  readonly fields?: Record<string, unknown>;
}

/** A comms thread and a compute thread, as a worker has them. */
class TwoThreads {
  readonly comms: CommsThread;
  readonly #compute: Worker;
  readonly #waiting = new Map<number, (outcome: Outcome) => void>();
  #nextId = 0;

  constructor(comms: CommsThread) {
    this.comms = comms;
    this.#compute = new Worker(path.join(packageRoot(), 'tests/support/sync-rank.mjs'), {
      workerData: { end: comms.compute },
      transferList: [comms.compute.port],
      execArgv: [],
    });
    this.#compute.on('message', (outcome: Outcome & { id: number }) => this.#waiting.get(outcome.id)?.(outcome));
  }

  step(generation: number, calls: readonly object[]): Promise<Outcome> {
    const id = this.#nextId++;
    return new Promise((resolve) => {
      this.#waiting.set(id, resolve);
      this.#compute.postMessage({ id, generation, calls });
    });
  }

  async close(): Promise<void> {
    await this.comms.close();
    await this.#compute.terminate();
  }
}

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function workers(world: number, timeoutMs = 10_000): Promise<TwoThreads[]> {
  const server = await startNatsServer({}, { logger: silentLogger });
  cleanups.push(() => server.stop());
  return Promise.all(
    Array.from({ length: world }, async () => {
      const comms = await startCommsThread(
        { natsUrl: server.url, timeoutMs, log: { level: 'silent' } },
        { logger: silentLogger },
      );
      const threads = new TwoThreads(comms);
      cleanups.push(() => threads.close());
      return threads;
    }),
  );
}

describe.skipIf(reason !== '')(`the comms thread${reason}`, { timeout: 30_000 }, () => {
  it('gathers and sums for compute threads that block, with several reductions in flight', async () => {
    const ranks = await workers(2);
    const groups = [0, 1].map((r) => evenGroup(2, 3, 1, r));
    await Promise.all(ranks.map(({ comms }, r) => comms.configure(groups[r]!)));
    const vectors = [0, 1, 2, 3].map((op) => laneVectors(3, op % 2 ? 100 : 70_000, `sync-${op}`));
    const gathers = groups.map((group) => {
      const out = sharedBytes(3000);
      out.fill(group.rank + 1, group.members[group.rank]!.laneBegin * 1000, group.members[group.rank]!.laneEnd * 1000);
      return out;
    });
    const outs = groups.map(() => vectors.map((lanes) => shared(new Float32Array(lanes[0]!.length))));
    const outcomes = await Promise.all(
      ranks.map((rank, r) =>
        rank.step(1, [
          { kind: 'gather', op: 0, laneBytes: 1000, out: gathers[r] },
          ...vectors.map((lanes, i) => ({
            kind: 'reduce',
            op: 1 + i,
            partials: lanePartials(lanes, groups[r]!.members[r]!),
            out: outs[r]![i],
          })),
        ]),
      ),
    );
    for (const outcome of outcomes) expect(outcome).toMatchObject({ ok: true });
    expect(sameBytes(gathers[0]!, gathers[1]!)).toBe(true);
    for (const results of outs)
      for (const [i, out] of results.entries()) expect(sameBytes(out, serialTreeSum(vectors[i]!))).toBe(true);
    const stats = await ranks[0]!.comms.stats();
    expect(stats.operations.treeAllReduce).toMatchObject({ count: 4, failed: 0, bytes: 2 * 4 * 70_100 });
    expect(stats.operations.allGather.seconds).toBeGreaterThan(0);
  });

  it('wakes a blocked compute thread with ABORTED, and refuses what an old step asks for in a new generation', async () => {
    const ranks = await workers(2);
    const groups = [0, 1].map((r) => evenGroup(2, 2, 1, r));
    await Promise.all(ranks.map(({ comms }, r) => comms.configure(groups[r]!)));
    const blocked = ranks[0]!.step(1, [{ kind: 'gather', op: 0, laneBytes: 10, out: sharedBytes(20) }]);
    // This one is busy while the generation changes, and asks for its gather only afterwards.
    const late = ranks[1]!.step(1, [
      { kind: 'busy', ms: 800 },
      { kind: 'gather', op: 0, laneBytes: 10, out: sharedBytes(20) },
    ]);
    await new Promise((resolve) => setTimeout(resolve, 100));
    await ranks[0]!.comms.abort('a worker left');
    expect(await blocked).toMatchObject({ ok: false, code: 'ABORTED' });
    await Promise.all(ranks.map(({ comms }, r) => comms.configure({ ...groups[r]!, generation: 2 })));
    expect(await late).toMatchObject({ ok: false, code: 'ABORTED' });
    const outs = [sharedBytes(20), sharedBytes(20)];
    const again = await Promise.all(
      ranks.map((rank, r) => rank.step(2, [{ kind: 'gather', op: 0, laneBytes: 10, out: outs[r] }])),
    );
    for (const outcome of again) expect(outcome).toMatchObject({ ok: true });
  });

  it('carries a timeout with the absent member to the compute thread', async () => {
    const ranks = await workers(2, 400);
    await Promise.all(ranks.map(({ comms }, r) => comms.configure(evenGroup(2, 2, 1, r))));
    const outcome = await ranks[0]!.step(1, [{ kind: 'gather', op: 0, laneBytes: 10, out: sharedBytes(20) }]);
    expect(outcome).toMatchObject({ ok: false, code: 'TIMEOUT', fields: { waitingFor: ['m1'] } });
  });

  it('serves state while its compute thread is busy', async () => {
    const ranks = await workers(2);
    await Promise.all(ranks.map(({ comms }, r) => comms.configure(evenGroup(2, 2, 1, r))));
    const state = new Uint8Array(shared(laneVectors(1, 500_000, 'heal')[0]!).buffer);
    await ranks[0]!.comms.serveState(state);
    const busy = ranks[0]!.step(1, [{ kind: 'busy', ms: 3000 }]);
    const into = sharedBytes(state.length);
    await ranks[1]!.comms.fetchState('m0', into);
    expect(sameBytes(into, state)).toBe(true);
    await busy;
  });

  it('refuses private memory, and a NATS that is not there', async () => {
    const [rank] = await workers(1);
    await rank!.comms.configure(evenGroup(1, 2));
    const outcome = await rank!.step(1, [{ kind: 'gather', op: 0, laneBytes: 10, out: new Uint8Array(20) }]);
    expect(outcome).toMatchObject({ ok: false, code: 'INVALID_ARGUMENT' });
    const thrown: unknown = await startCommsThread(
      { natsUrl: 'nats://127.0.0.1:1', log: { level: 'silent' } },
      { logger: silentLogger },
    ).catch((error: unknown) => error);
    expect(CoveyError.is(thrown, 'UNAVAILABLE') && thrown.message).toContain('nats://127.0.0.1:1');
  });

  it('wakes the compute thread when the comms thread is gone', async () => {
    const ranks = await workers(2);
    await Promise.all(ranks.map(({ comms }, r) => comms.configure(evenGroup(2, 2, 1, r))));
    const blocked = ranks[0]!.step(1, [{ kind: 'gather', op: 0, laneBytes: 10, out: sharedBytes(20) }]);
    await new Promise((resolve) => setTimeout(resolve, 100));
    await ranks[0]!.comms.close();
    const outcome = await blocked;
    expect(outcome.ok).toBe(false);
    expect(['ABORTED', 'UNAVAILABLE']).toContain(outcome.code);
    expect(await ranks[0]!.step(1, [{ kind: 'gather', op: 1, laneBytes: 10, out: sharedBytes(20) }])).toMatchObject({
      code: 'UNAVAILABLE',
    });
  });
});
