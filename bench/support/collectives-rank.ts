import { CoveyError } from '../../common/errors.ts';
import { silentLogger } from '../../common/log.ts';
import type { GroupMember } from '../../worker/collectives/collectives.ts';
import { NatsCollectives } from '../../worker/collectives/nats/nats-collectives.ts';

/**
 * One rank of the collectives benchmark, in a process of its own. Arguments: NATS URL, rank, world, chunk bytes. Reads lines
 * `<gather|reduce> <bytes> <iterations>` and answers each with a JSON array of milliseconds per iteration.
 */
const [url, rankText, worldText, chunkText] = process.argv.slice(2);
const rank = Number(rankText);
const world = Number(worldText);
const collectives = await NatsCollectives.connect(
  { url: url!, timeoutMs: 60_000, ...(Number(chunkText) > 0 ? { chunkBytes: Number(chunkText) } : {}) },
  { logger: silentLogger },
);
const members: GroupMember[] = Array.from({ length: world }, (_, r) => ({
  memberId: `m${r}`,
  laneBegin: r,
  laneEnd: r + 1,
}));
await collectives.configure({ run: 'bench', generation: 1, rank, members, laneCount: world });
let op = 0;

async function measure(kind: string, bytes: number, iterations: number): Promise<number[]> {
  // Twice, by parity, as the training step does: the memory of one step is not the memory of the next.
  const buffers = [0, 1].map(() => ({
    gathered: new Uint8Array(new SharedArrayBuffer(bytes * world)).fill(rank),
    partial: new Float32Array(new SharedArrayBuffer(bytes)).fill(rank + 1),
    sum: new Float32Array(new SharedArrayBuffer(bytes)).fill(0),
  }));
  const run = (i: number) => {
    const { gathered, partial, sum } = buffers[i % 2]!;
    return kind === 'gather'
      ? collectives.allGather(op++, bytes, gathered)
      : collectives.treeAllReduce(op++, [partial], sum);
  };
  for (let i = 0; i < 2; i++) await run(i);
  const milliseconds: number[] = [];
  for (let i = 0; i < iterations; i++) {
    const start = performance.now();
    await run(i);
    milliseconds.push(performance.now() - start);
  }
  const expected = (world * (world + 1)) / 2;
  const wrong =
    kind === 'gather' ? buffers[0]!.gathered[bytes * world - 1] !== world - 1 : buffers[0]!.sum.at(-1) !== expected;
  if (wrong) throw new CoveyError('INTERNAL', `the ${kind} of ${bytes} bytes is wrong`);
  return milliseconds;
}

process.stdin.setEncoding('utf8');
let pending = '';
process.stdin.on('data', async (text: string) => {
  pending += text;
  const end = pending.indexOf('\n');
  if (end < 0) return;
  const [kind, bytes, iterations] = pending.slice(0, end).split(' ');
  pending = pending.slice(end + 1);
  process.stdout.write(`${JSON.stringify(await measure(kind!, Number(bytes), Number(iterations)))}\n`);
});
process.stdin.on('end', () => void collectives.close());
process.stdout.write('ready\n');
