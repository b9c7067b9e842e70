import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { builtModule, packageRoot } from '../common/built-module.ts';
import { CoveyError } from '../common/errors.ts';
import { silentLogger } from '../common/log.ts';
import { startNatsServer } from '../common/nats-server.ts';

export interface BenchRow {
  readonly case: string;
  readonly ours: number;
  /** Gloo of Debian's python3-torch; NaN where it is not installed. */
  readonly peer: number;
  /** Above 1: covey is better. */
  readonly ratio: number;
  readonly unit: string;
}

interface BenchCase {
  readonly kind: 'gather' | 'reduce';
  readonly bytes: number;
  readonly iterations: number;
}

const ANSWER_LIMIT_MS = 60_000;
const SIZES = [
  { bytes: 64 * 1024, name: '64 KiB', iterations: 40 },
  { bytes: 2 ** 20, name: '1 MiB', iterations: 20 },
  { bytes: 16 * 2 ** 20, name: '16 MiB', iterations: 5 },
];

/** Processes that measure together, driven by lines on their standard input. */
class RankProcesses {
  readonly #children: ChildProcess[];
  readonly #lines: AsyncIterator<string>[];
  readonly #readers: Interface[];

  constructor(commands: readonly (readonly string[])[]) {
    this.#children = commands.map(([command, ...args]) =>
      spawn(command!, args, { stdio: ['pipe', 'pipe', 'inherit'] }),
    );
    this.#readers = this.#children.map((child) => createInterface({ input: child.stdout! }));
    this.#lines = this.#readers.map((reader) => reader[Symbol.asyncIterator]());
  }

  /** One line of every process. */
  async lines(): Promise<string[]> {
    let timer: NodeJS.Timeout | undefined;
    const expired = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new CoveyError('TIMEOUT', `a rank did not answer within ${ANSWER_LIMIT_MS} ms`)),
        ANSWER_LIMIT_MS,
      );
    });
    try {
      const results = await Promise.race([Promise.all(this.#lines.map((lines) => lines.next())), expired]);
      return results.map(({ value, done }) => {
        if (done) throw new CoveyError('UNAVAILABLE', 'a rank of the benchmark ended early; see its output above');
        return value;
      });
    } finally {
      clearTimeout(timer);
    }
  }

  /** Milliseconds per iteration: of each, the slowest rank's. */
  async measure({ kind, bytes, iterations }: BenchCase): Promise<number[]> {
    for (const child of this.#children) child.stdin!.write(`${kind} ${bytes} ${iterations}\n`);
    const perRank = (await this.lines()).map((line) => JSON.parse(line) as number[]);
    return perRank[0]!.map((_, i) => Math.max(...perRank.map((times) => times[i]!)));
  }

  async close(): Promise<void> {
    for (const [i, child] of this.#children.entries()) {
      child.stdin!.end();
      this.#readers[i]!.close();
      if (child.exitCode === null)
        await Promise.race([
          new Promise((resolve) => child.once('exit', resolve)),
          new Promise((resolve) => setTimeout(resolve, 2000)),
        ]);
      child.kill('SIGKILL');
    }
  }
}

/** All-gather and all-reduce over NATS against Gloo: every rank a process, rounds interleaved, medians. Bytes are each rank's. */
export async function run(options: { json?: boolean; quick?: boolean; chunkBytes?: number } = {}): Promise<BenchRow[]> {
  const rows: BenchRow[] = [];
  const rounds = options.quick ? 1 : 3;
  const server = await startNatsServer({}, { logger: silentLogger });
  const folder = await mkdtemp(path.join(os.tmpdir(), 'covey-bench-'));
  try {
    for (const world of [2, 4]) {
      const ours = new RankProcesses(
        ranksOf(world).map((rank) => [
          process.execPath,
          fileURLToPath(builtModule('bench/support/collectives-rank')),
          server.url,
          `${rank}`,
          `${world}`,
          `${options.chunkBytes ?? 0}`,
        ]),
      );
      const gloo = await startGloo(world, path.join(folder, `rendezvous-${world}`));
      try {
        await ours.lines();
        for (const kind of ['gather', 'reduce'] as const) {
          for (const { bytes, name, iterations } of SIZES) {
            const benchCase: BenchCase = { kind, bytes, iterations };
            const times = { ours: [] as number[], peer: [] as number[] };
            for (let round = 0; round < rounds; round++) {
              times.ours.push(...(await ours.measure(benchCase)));
              if (gloo) times.peer.push(...(await gloo.measure(benchCase)));
            }
            const oursMs = median(times.ours);
            const peerMs = median(times.peer);
            const label = kind === 'gather' ? 'all-gather' : 'tree all-reduce';
            rows.push({
              case: `${label} ${name}, ${world} ranks`,
              ours: oursMs,
              peer: peerMs,
              ratio: peerMs / oursMs,
              unit: 'ms',
            });
          }
        }
      } finally {
        await ours.close();
        await gloo?.close();
      }
    }
  } finally {
    await server.stop();
    await rm(folder, { recursive: true, force: true });
  }
  return rows;
}

/** Undefined where python3-torch is not installed. */
async function startGloo(world: number, rendezvous: string): Promise<RankProcesses | undefined> {
  const python = process.env['COVEY_PYTHON'] ?? '/usr/bin/python3';
  const script = path.join(packageRoot(), 'bench/peers/gloo.py');
  const gloo = new RankProcesses(ranksOf(world).map((rank) => [python, script, `${rank}`, `${world}`, rendezvous]));
  try {
    await gloo.lines();
    return gloo;
  } catch (thrown) {
    if (!CoveyError.is(thrown, 'UNAVAILABLE')) throw thrown;
    await gloo.close();
    return undefined;
  }
}

function ranksOf(world: number): number[] {
  return [...new Array<undefined>(world).keys()];
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? Number.NaN;
}
