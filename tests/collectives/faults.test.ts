import { type ChildProcess, fork } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import { packageRoot } from '../../common/built-module.ts';
import { CoveyError } from '../../common/errors.ts';
import { silentLogger } from '../../common/log.ts';
import { findNatsServer, type NatsServerHandle, startNatsServer } from '../../common/nats-server.ts';
import type { Group } from '../../worker/collectives/collectives.ts';
import { NatsLink } from '../../worker/collectives/nats/link.ts';
import { NatsCollectives } from '../../worker/collectives/nats/nats-collectives.ts';
import {
  evenGroup,
  lanePartials,
  laneVectors,
  sameBytes,
  serialTreeSum,
  shared,
} from '../support/collectives-cases.ts';
import { type Faults, FaultyLink } from '../support/faulty-link.ts';

const builtFile = path.join(packageRoot(), 'dist/worker/collectives/nats/nats-collectives.js');
const noServer = findNatsServer() ? '' : ' (skipped: nats-server is not installed)';
const noBuild = existsSync(builtFile) ? '' : ' (skipped: covey is not built)';

const cleanups: (() => Promise<unknown> | unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function server(port = 0): Promise<NatsServerHandle> {
  const handle = await startNatsServer({ port }, { logger: silentLogger });
  cleanups.push(() => handle.stop());
  return handle;
}

async function localRank(
  url: string,
  faults?: Faults,
  seed = '',
): Promise<{ rank: NatsCollectives; link: FaultyLink | NatsLink }> {
  const inner = await NatsLink.open({ url, name: 'test' }, silentLogger);
  const link = faults ? new FaultyLink(inner, faults, seed) : inner;
  const rank = new NatsCollectives(
    { chunkBytes: 16 * 1024, nakDelayMs: 50, timeoutMs: 20_000 },
    { link, logger: silentLogger },
  );
  cleanups.push(() => rank.close());
  return { rank, link };
}

/** Sums one set of vectors on all ranks and checks the bits. */
async function reduceAndCheck(
  ranks: readonly NatsCollectives[],
  groups: readonly Group[],
  op: number,
  floats: number,
): Promise<void> {
  const vectors = laneVectors(groups[0]!.laneCount, floats, `op-${op}`);
  const expected = serialTreeSum(vectors);
  const outs = groups.map(() => shared(new Float32Array(floats)));
  await Promise.all(
    ranks.map((rank, r) => rank.treeAllReduce(op, lanePartials(vectors, groups[r]!.members[r]!), outs[r]!)),
  );
  for (const out of outs) expect(sameBytes(out, expected)).toBe(true);
}

class RemoteRank {
  readonly child: ChildProcess;
  readonly #waiting = new Map<number, (answer: { ok: boolean; code?: string; message?: string }) => void>();
  readonly ready: Promise<unknown>;
  #nextId = 1;

  constructor(url: string) {
    const script = path.join(packageRoot(), 'tests/support/collective-rank.mjs');
    this.child = fork(script, [pathToFileURL(builtFile).href, url], { execArgv: [] });
    this.child.on('message', (answer: { id: number; ok: boolean }) => {
      this.#waiting.get(answer.id)?.(answer);
      this.#waiting.delete(answer.id);
    });
    this.ready = new Promise((resolve) => this.#waiting.set(0, resolve));
    cleanups.push(() => this.child.kill('SIGKILL'));
  }

  send(command: string, fields: object): Promise<{ ok: boolean; code?: string; message?: string }> {
    const id = this.#nextId++;
    return new Promise((resolve) => {
      this.#waiting.set(id, resolve);
      this.child.send({ id, command, ...fields });
    });
  }
}

function gatherBuffer(group: Group, laneBytes: number, op: number): { out: Uint8Array; expected: Uint8Array } {
  const expected = new Uint8Array(laneBytes * group.laneCount);
  for (let i = 0; i < expected.length; i++) {
    expected[i] = (Math.floor(i / laneBytes) * 31 + op * 17 + (i % laneBytes) * 7) & 255;
  }
  const { laneBegin, laneEnd } = group.members[group.rank]!;
  const out = new Uint8Array(expected.length);
  out.set(expected.subarray(laneBegin * laneBytes, laneEnd * laneBytes), laneBegin * laneBytes);
  return { out, expected };
}

describe.skipIf(noServer !== '')(`collectives over a NATS that misbehaves${noServer}`, { timeout: 40_000 }, () => {
  it.each([
    ['drops 5 %', { drop: 0.05, duplicate: 0, corrupt: 0, reorder: 0 }],
    ['doubles 5 %', { drop: 0, duplicate: 0.05, corrupt: 0, reorder: 0 }],
    ['corrupts 5 %', { drop: 0, duplicate: 0, corrupt: 0.05, reorder: 0 }],
    ['reorders 5 %', { drop: 0, duplicate: 0, corrupt: 0, reorder: 0.05 }],
    ['does everything to 3 %', { drop: 0.03, duplicate: 0.03, corrupt: 0.03, reorder: 0.03 }],
  ] as const)('sums to the same bits when the network %s of the messages', async (_, faults) => {
    const { url } = await server();
    const opened = await Promise.all([0, 1, 2].map((r) => localRank(url, faults, `rank-${r}`)));
    const ranks = opened.map(({ rank }) => rank);
    const groups = ranks.map((_, r) => evenGroup(3, 8, 1, r));
    await Promise.all(ranks.map((rank, r) => rank.configure(groups[r]!)));
    for (let op = 0; op < 6; op++) await reduceAndCheck(ranks, groups, op, op % 2 ? 80_000 : 300);
    const state = new Uint8Array(laneVectors(1, 100_000, 'state')[0]!.buffer);
    const copy = new Uint8Array(state.length);
    ranks[0]!.serveState(state);
    await ranks[1]!.fetchState('m0', copy);
    expect(sameBytes(copy, state)).toBe(true);

    expect(opened.reduce((sum, { link }) => sum + (link as FaultyLink).injected, 0)).toBeGreaterThan(0);
    const stats = ranks.map((rank) => rank.stats());
    const total = (pick: (s: (typeof stats)[number]) => number) => stats.reduce((sum, s) => sum + pick(s), 0);
    if (faults.drop + faults.corrupt > 0) expect(total((s) => s.retransmits)).toBeGreaterThan(0);
    if (faults.corrupt > 0) expect(total((s) => s.corrupt)).toBeGreaterThan(0);
    if (faults.duplicate > 0) expect(total((s) => s.duplicates)).toBeGreaterThan(0);
  });

  it('rejects with the absent peer named when nothing of it gets through', async () => {
    const { url } = await server();
    const ok = await localRank(url);
    const mute = await localRank(url);
    const groups = [0, 1].map((r) => evenGroup(2, 2, 1, r));
    await Promise.all([ok.rank.configure(groups[0]!), mute.rank.configure(groups[1]!)]);
    const { out } = gatherBuffer(groups[0]!, 100_000, 0);
    const thrown: unknown = await ok.rank
      .allGather(0, 100_000, out, { timeoutMs: 500 })
      .catch((error: unknown) => error);
    expect(CoveyError.is(thrown, 'TIMEOUT') && thrown.fields['waitingFor']).toEqual(['m1']);
  });

  it('refuses messages of another generation and counts them', async () => {
    const { url } = await server();
    const { rank } = await localRank(url);
    const peer = await localRank(url);
    const groups = [0, 1].map((r) => evenGroup(2, 2, 3, r));
    await Promise.all([rank.configure(groups[0]!), peer.rank.configure(groups[1]!)]);
    const { encodeFrame } = await import('../../worker/collectives/nats/frame.ts');
    const bytes = new Uint8Array(10).fill(9);
    const frame = { kind: 'd', generation: 2, op: '0', source: 1, part: 0, offset: 0, total: 10 } as const;
    peer.link.publish('covey.test.g3.0', encodeFrame(frame, bytes), bytes);
    const buffers = groups.map((group) => gatherBuffer(group, 10, 0));
    await peer.link.flush();
    await Promise.all([rank.allGather(0, 10, buffers[0]!.out), peer.rank.allGather(0, 10, buffers[1]!.out)]);
    expect(sameBytes(buffers[0]!.out, buffers[0]!.expected)).toBe(true);
    expect(rank.stats().stale).toBe(1);
  });

  it('finishes with the same bits after nats-server was killed and restarted in mid-operation', async () => {
    const first = await server();
    const opened = await Promise.all([0, 1, 2].map(() => localRank(first.url)));
    const ranks = opened.map(({ rank }) => rank);
    const groups = ranks.map((_, r) => evenGroup(3, 5, 1, r));
    await Promise.all(ranks.map((rank, r) => rank.configure(groups[r]!)));
    await reduceAndCheck(ranks, groups, 0, 1000);
    const running = [1, 2, 3].map((op) => reduceAndCheck(ranks, groups, op, 1_500_000));
    await expect.poll(() => ranks[0]!.stats().bytesSent, { timeout: 5000, interval: 1 }).toBeGreaterThan(1_000_000);
    process.kill(first.pid, 'SIGKILL');
    const sentAtKill = ranks[0]!.stats().bytesSent;
    await new Promise((resolve) => setTimeout(resolve, 300));
    await server(first.port);
    await Promise.all(running);
    await reduceAndCheck(ranks, groups, 9, 1000);
    // It really was in the middle.
    expect(sentAtKill).toBeLessThan(ranks[0]!.stats().bytesSent);
    for (const rank of ranks) expect(rank.stats().disconnects).toBeGreaterThanOrEqual(1);
  });
});

describe.skipIf(noServer + noBuild !== '')(
  `collectives with peers in trouble${noServer}${noBuild}`,
  { timeout: 40_000 },
  () => {
    async function trio(): Promise<{ url: string; local: NatsCollectives[]; remote: RemoteRank; groups: Group[] }> {
      const { url } = await server();
      const remote = new RemoteRank(url);
      await remote.ready;
      const local = await Promise.all(
        [0, 1].map(async () => {
          const rank = await NatsCollectives.connect({ url, timeoutMs: 20_000 }, { logger: silentLogger });
          cleanups.push(() => rank.close());
          return rank;
        }),
      );
      const groups = [0, 1, 2].map((r) => evenGroup(3, 3, 1, r));
      const configured = remote.send('configure', { group: groups[2]! });
      await Promise.all(local.map((rank, r) => rank.configure(groups[r]!)));
      expect(await configured).toMatchObject({ ok: true });
      return { url, local, remote, groups };
    }

    it.each(['SIGSTOP', 'SIGKILL'] as const)(
      'names a peer struck by %s, and goes on without it in the next generation',
      async (signal) => {
        const { local, remote, groups } = await trio();
        const laneBytes = 6_000_000;
        const buffers = groups.map((group) => gatherBuffer(group, laneBytes, 0));
        const zombie = remote.send('gather', { op: 0, laneBytes, timeoutMs: 3000 });
        const running = local.map((rank, r) =>
          rank.allGather(0, laneBytes, buffers[r]!.out, { timeoutMs: 1500 }).catch((error: unknown) => error),
        );
        remote.child.kill(signal);
        for (const thrown of await Promise.all(running)) {
          // On a fast machine the peer may have delivered everything before it was struck.
          if (thrown !== undefined)
            expect(CoveyError.is(thrown, 'TIMEOUT') && thrown.fields['waitingFor']).toContain('m2');
        }
        const pair = [0, 1].map((r) => evenGroup(2, 3, 2, r));
        await Promise.all(local.map((rank, r) => rank.configure(pair[r]!)));
        if (signal === 'SIGSTOP') remote.child.kill('SIGCONT');
        const next = pair.map((group) => gatherBuffer(group, laneBytes, 0));
        await Promise.all(local.map((rank, r) => rank.allGather(0, laneBytes, next[r]!.out)));
        for (const { out, expected } of next) expect(sameBytes(out, expected)).toBe(true);
        if (signal === 'SIGSTOP') expect((await zombie).ok || (await zombie).code === 'TIMEOUT').toBe(true);
      },
    );

    it('waits out a receiver that is blocked for seconds, holding no more in flight than it was granted', async () => {
      const { local, remote, groups } = await trio();
      const laneBytes = 24 * 2 ** 20;
      const buffers = groups.map((group) => gatherBuffer(group, laneBytes, 0));
      await remote.send('block', { ms: 2500 });
      await new Promise((resolve) => setTimeout(resolve, 100));
      const slow = remote.send('gather', { op: 0, laneBytes, timeoutMs: 20_000 });
      const running = local.map((rank, r) => rank.allGather(0, laneBytes, buffers[r]!.out));
      await new Promise((resolve) => setTimeout(resolve, 1200));
      for (const rank of local) expect(rank.stats().bytesSent).toBeLessThanOrEqual(8 * 2 ** 20);
      await Promise.all(running);
      expect(await slow).toMatchObject({ ok: true });
      for (const [r] of local.entries()) expect(sameBytes(buffers[r]!.out, buffers[r]!.expected)).toBe(true);
      for (const rank of local) expect(rank.stats().creditWaits).toBeGreaterThan(0);
    });
  },
);
