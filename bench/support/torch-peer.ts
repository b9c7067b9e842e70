import { spawn, spawnSync } from 'node:child_process';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { packageRoot } from '../../common/built-module.ts';
import { CoveyError } from '../../common/errors.ts';

export interface TorchPeer {
  /** Runs n repetitions and returns the seconds of each. */
  run(n: number): Promise<number[]>;
  close(): Promise<void>;
}

/** A python3-torch process (bench/peers/NAME) that works on request, so that both sides can take turns. Null where it is absent. */
export async function startTorchPeer(script: string, settings: object): Promise<TorchPeer | null> {
  const python = process.env['COVEY_BENCH_PYTHON'] ?? '/usr/bin/python3';
  if (spawnSync(python, ['-c', 'import torch']).status !== 0) {
    process.stderr.write(
      'python3-torch is not installed (apt-get install -y python3-torch): no peer to compare with\n',
    );
    return null;
  }
  const child = spawn(python, [path.join(packageRoot(), 'bench/peers', script)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const ask = async (line: string): Promise<unknown> => {
    child.stdin.write(`${line}\n`);
    const answer = await lines.next();
    if (answer.done) throw new CoveyError('UNAVAILABLE', `the peer ${script} ended early`);
    return JSON.parse(answer.value);
  };
  await ask(JSON.stringify(settings));
  return {
    run: async (n) => (await ask(String(n))) as number[],
    close: () =>
      new Promise((resolve) => {
        child.once('exit', () => resolve());
        child.stdin.end();
      }),
  };
}
