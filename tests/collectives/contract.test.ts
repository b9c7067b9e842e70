import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { CoveyError } from '../../common/errors.ts';
import { silentLogger } from '../../common/log.ts';
import { findNatsServer, type NatsServerHandle, startNatsServer } from '../../common/nats-server.ts';
import type { Collectives, Group } from '../../worker/collectives/collectives.ts';
import { MemoryHub } from '../../worker/collectives/memory-collectives.ts';
import { NatsCollectives } from '../../worker/collectives/nats/nats-collectives.ts';
import {
  evenGroup,
  laneBlock,
  lanePartials,
  laneVectors,
  sameBytes,
  serialTreeSum,
  shared,
  sharedBytes,
} from '../support/collectives-cases.ts';

/** Every implementation of the seam passes these. */
interface Implementation {
  readonly name: string;
  open(): Promise<void>;
  rank(): Promise<Collectives>;
  close(): Promise<void>;
}

function memoryImplementation(): Implementation {
  let hub = new MemoryHub();
  return {
    name: 'memory',
    open: async () => {
      hub = new MemoryHub();
    },
    rank: async () => hub.join({ timeoutMs: 10_000 }),
    close: async () => {},
  };
}

function natsImplementation(): Implementation {
  let server: NatsServerHandle | undefined;
  return {
    name: 'nats',
    open: async () => {
      server = await startNatsServer({}, { logger: silentLogger });
    },
    // Small chunks, so that small vectors too are sent in many pieces.
    rank: () =>
      NatsCollectives.connect({ url: server!.url, chunkBytes: 16 * 1024, timeoutMs: 10_000 }, { logger: silentLogger }),
    close: async () => server?.stop(),
  };
}

async function caught(work: Promise<unknown>): Promise<CoveyError> {
  return work.then(
    () => expect.unreachable('it should reject'),
    (thrown: unknown) => {
      expect(thrown).toBeInstanceOf(CoveyError);
      return thrown as CoveyError;
    },
  );
}

const absentReason = findNatsServer() ? '' : ' (skipped: nats-server is not installed)';

describe.each([memoryImplementation(), natsImplementation()])('collectives: $name', (implementation) => {
  describe.skipIf(implementation.name === 'nats' && absentReason !== '')(`contract${absentReason}`, () => {
    let ranks: Collectives[] = [];
    let runCount = 0;

    beforeAll(() => implementation.open());
    afterAll(() => implementation.close());
    afterEach(async () => {
      await Promise.all(ranks.map((rank) => rank.close()));
      ranks = [];
    });

    /** Opens ranks and enters generation 1 of a fresh run. */
    async function enter(world: number, laneCount: number): Promise<Group[]> {
      const run = `contract-${runCount++}`;
      ranks = await Promise.all(Array.from({ length: world }, () => implementation.rank()));
      const groups = ranks.map((_, rank) => evenGroup(world, laneCount, 1, rank, run));
      await Promise.all(ranks.map((rank, r) => rank.configure(groups[r]!)));
      return groups;
    }

    function ownBlocks(group: Group, laneBytes: number, seed = 0): Uint8Array {
      const out = sharedBytes(group.laneCount * laneBytes);
      const { laneBegin, laneEnd } = group.members[group.rank]!;
      for (let lane = laneBegin; lane < laneEnd; lane++) out.set(laneBlock(lane, laneBytes, seed), lane * laneBytes);
      return out;
    }

    function allBlocks(laneCount: number, laneBytes: number, seed = 0): Uint8Array {
      return Buffer.concat(Array.from({ length: laneCount }, (_, lane) => laneBlock(lane, laneBytes, seed)));
    }

    for (const [world, laneCount] of [
      [1, 3],
      [2, 4],
      [2, 3],
      [3, 8],
      [4, 7],
    ] as const) {
      it(`gathers every lane's block into its place with ${world} ranks and ${laneCount} lanes`, async () => {
        const groups = await enter(world, laneCount);
        for (const [op, laneBytes] of [1, 100, 50_001].entries()) {
          const outs = groups.map((group) => ownBlocks(group, laneBytes));
          await Promise.all(ranks.map((rank, r) => rank.allGather(op, laneBytes, outs[r]!)));
          for (const out of outs) expect(sameBytes(out, allBlocks(laneCount, laneBytes))).toBe(true);
        }
      });

      it(`sums to the bits of the serial tree with ${world} ranks and ${laneCount} lanes`, async () => {
        const groups = await enter(world, laneCount);
        for (const [op, floats] of [1, 7, 1000, 100_003].entries()) {
          const vectors = laneVectors(laneCount, floats, `reduce-${floats}`);
          const expected = serialTreeSum(vectors);
          const outs = groups.map(() => shared(new Float32Array(floats)));
          await Promise.all(
            ranks.map((rank, r) => rank.treeAllReduce(op, lanePartials(vectors, groups[r]!.members[r]!), outs[r]!)),
          );
          for (const out of outs) expect(sameBytes(out, expected)).toBe(true);
        }
      });
    }

    it('leaves the inputs of a reduction as they were, and may write its result over one of them', async () => {
      const groups = await enter(2, 3);
      for (const [op, floats] of [500, 60_000].entries()) {
        const vectors = laneVectors(3, floats, 'alias');
        const partials = groups.map((group) => lanePartials(vectors, group.members[group.rank]!));
        const outs = [partials[0]![0]!, shared(new Float32Array(floats))];
        const before = partials[1]!.map((partial) => partial.slice());
        await Promise.all(ranks.map((rank, r) => rank.treeAllReduce(op, partials[r]!, outs[r]!)));
        for (const out of outs) expect(sameBytes(out, serialTreeSum(vectors))).toBe(true);
        for (const [k, partial] of before.entries()) expect(sameBytes(partials[1]![k]!, partial)).toBe(true);
      }
    });

    it('keeps overlapping operations apart', async () => {
      const groups = await enter(3, 8);
      const vectors = Array.from({ length: 12 }, (_, op) => laneVectors(8, op % 2 ? 30_000 : 500, `overlap-${op}`));
      const outs = groups.map(() => vectors.map((lanes) => shared(new Float32Array(lanes[0]!.length))));
      const gathered = groups.map((group) => ownBlocks(group, 9000, 5));
      await Promise.all(
        ranks.flatMap((rank, r) => [
          ...vectors.map((lanes, op) =>
            rank.treeAllReduce(op, lanePartials(lanes, groups[r]!.members[r]!), outs[r]![op]!),
          ),
          rank.allGather(100, 9000, gathered[r]!),
        ]),
      );
      for (const [r] of groups.entries()) {
        for (const [op, lanes] of vectors.entries()) expect(sameBytes(outs[r]![op]!, serialTreeSum(lanes))).toBe(true);
        expect(sameBytes(gathered[r]!, allBlocks(8, 9000, 5))).toBe(true);
      }
    });

    it('waits for a rank that begins late', async () => {
      const groups = await enter(2, 2);
      const outs = groups.map((group) => ownBlocks(group, 200_000));
      const first = ranks[0]!.allGather(0, 200_000, outs[0]!);
      await new Promise((resolve) => setTimeout(resolve, 300));
      await Promise.all([first, ranks[1]!.allGather(0, 200_000, outs[1]!)]);
      for (const out of outs) expect(sameBytes(out, allBlocks(2, 200_000))).toBe(true);
    });

    it('names the absent rank when time is up', async () => {
      const groups = await enter(3, 3);
      const outs = groups.map((group) => ownBlocks(group, 1000));
      const errors = await Promise.all(
        [0, 1].map((r) => caught(ranks[r]!.allGather(0, 1000, outs[r]!, { timeoutMs: 300 }))),
      );
      for (const error of errors) {
        expect(error.code).toBe('TIMEOUT');
        expect(error.fields['waitingFor']).toEqual(['m2']);
      }
    });

    it('names the members that do not enter the generation', async () => {
      const lonely = await implementation.rank();
      ranks = [lonely];
      const error = await caught(lonely.configure(evenGroup(3, 3, 1, 0, `lonely-${runCount++}`), { timeoutMs: 200 }));
      expect(error.code).toBe('TIMEOUT');
      expect(error.fields['waitingFor']).toEqual(['m1', 'm2']);
    });

    it('rejects what is in flight on abort, and works again in the next generation', async () => {
      const groups = await enter(2, 4);
      const vectors = laneVectors(4, 40_000, 'abort');
      const outs = groups.map(() => shared(new Float32Array(40_000)));
      const running = caught(ranks[0]!.treeAllReduce(7, lanePartials(vectors, groups[0]!.members[0]!), outs[0]!));
      ranks[0]!.abort('a worker left');
      const error = await running;
      expect(error.code).toBe('ABORTED');
      expect(error.message).toContain('a worker left');
      expect((await caught(ranks[0]!.allGather(8, 1, sharedBytes(4)))).code).toBe('ABORTED');

      const next = groups.map((group) => ({ ...group, generation: 2 }));
      await Promise.all(ranks.map((rank, r) => rank.configure(next[r]!)));
      await Promise.all(
        ranks.map((rank, r) => rank.treeAllReduce(7, lanePartials(vectors, next[r]!.members[r]!), outs[r]!)),
      );
      for (const out of outs) expect(sameBytes(out, serialTreeSum(vectors))).toBe(true);
    });

    it('aborts the older generation when a newer one is configured', async () => {
      const groups = await enter(2, 2);
      const running = caught(ranks[0]!.allGather(0, 10, sharedBytes(20)));
      await Promise.all(ranks.map((rank, r) => rank.configure({ ...groups[r]!, generation: 5 })));
      expect((await running).code).toBe('ABORTED');
    });

    it('refuses a stale generation, whose messages reach nobody', async () => {
      const groups = await enter(3, 3);
      // Rank 2 is frozen while the others go on without it, with the same operation numbers.
      const pair = evenGroup(2, 3, 2, 0, groups[0]!.run);
      await Promise.all([0, 1].map((r) => ranks[r]!.configure({ ...pair, rank: r })));
      const outs = [0, 1].map((r) => ownBlocks({ ...pair, rank: r }, 3000, 1));
      const zombieOut = ownBlocks(groups[2]!, 3000, 2);
      const zombie = caught(ranks[2]!.allGather(0, 3000, zombieOut, { timeoutMs: 400 }));
      await Promise.all([0, 1].map((r) => ranks[r]!.allGather(0, 3000, outs[r]!)));
      for (const out of outs) expect(sameBytes(out, allBlocks(3, 3000, 1))).toBe(true);
      expect((await zombie).code).toBe('TIMEOUT');
      expect((await caught(ranks[0]!.configure({ ...groups[0]!, generation: 1 }))).code).toBe('STALE_GENERATION');
    });

    it('cancels an operation by its signal', async () => {
      await enter(2, 2);
      const controller = new AbortController();
      const running = caught(ranks[0]!.allGather(0, 10, sharedBytes(20), { signal: controller.signal }));
      controller.abort();
      expect((await running).code).toBe('CANCELLED');
    });

    it('copies the state of a peer, also while operations run', async () => {
      const groups = await enter(3, 3);
      const state = shared(laneVectors(1, 700_001, 'state')[0]!);
      const bytes = new Uint8Array(state.buffer);
      const into = [sharedBytes(bytes.length), sharedBytes(bytes.length)];
      const fetches = [1, 2].map((r, i) => ranks[r]!.fetchState('m0', into[i]!));
      ranks[0]!.serveState(bytes);
      const outs = groups.map((group) => ownBlocks(group, 5000));
      await Promise.all([...fetches, ...ranks.map((rank, r) => rank.allGather(0, 5000, outs[r]!))]);
      for (const copy of into) expect(sameBytes(copy, bytes)).toBe(true);
      for (const out of outs) expect(sameBytes(out, allBlocks(3, 5000))).toBe(true);
    });

    it('names the peer that serves no state, and refuses one of another size', async () => {
      await enter(2, 2);
      const error = await caught(ranks[1]!.fetchState('m0', sharedBytes(10), { timeoutMs: 200 }));
      expect(error.code).toBe('TIMEOUT');
      expect(error.fields['waitingFor']).toEqual(['m0']);
      ranks[0]!.serveState(sharedBytes(11));
      expect((await caught(ranks[1]!.fetchState('m0', sharedBytes(10)))).code).toBe('INVALID_ARGUMENT');
      expect((await caught(ranks[1]!.fetchState('nobody', sharedBytes(10)))).code).toBe('INVALID_ARGUMENT');
    });

    it('refuses arguments that do not fit, and the same operation twice', async () => {
      const groups = await enter(2, 4);
      expect((await caught(ranks[0]!.allGather(0, 10, sharedBytes(39)))).code).toBe('INVALID_ARGUMENT');
      expect((await caught(ranks[0]!.treeAllReduce(0, [], shared(new Float32Array(4))))).code).toBe('INVALID_ARGUMENT');
      const outs = groups.map((group) => ownBlocks(group, 10));
      await Promise.all(ranks.map((rank, r) => rank.allGather(0, 10, outs[r]!)));
      expect((await caught(ranks[0]!.allGather(0, 10, outs[0]!))).code).toBe('INVALID_ARGUMENT');
      const broken = { ...groups[0]!, generation: 9, members: groups[0]!.members.slice(0, 1) };
      expect((await caught(ranks[0]!.configure(broken))).message).toContain('members hold 2 of 4 lanes');
    });

    it('rejects where ranks disagree about an operation, instead of mixing bytes', async () => {
      await enter(2, 2);
      const errors = await Promise.all([
        caught(ranks[0]!.allGather(0, 10, sharedBytes(20), { timeoutMs: 500 })),
        caught(ranks[1]!.allGather(0, 12, sharedBytes(24), { timeoutMs: 500 })),
      ]);
      expect(errors.map(({ code }) => code)).toContain('DATA_CORRUPT');
    });
  });
});
