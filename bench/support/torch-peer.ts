import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { packageRoot } from '../../common/built-module.ts';
import { LineProcess } from './line-process.ts';

export interface TorchPeer {
  /** Runs n repetitions and returns the seconds of each. */
  run(n: number): Promise<number[]>;
  close(): Promise<void>;
}

/** Debian's Python, whose python3-torch need not be first on PATH. */
export const debianPython = (): string => process.env['COVEY_BENCH_PYTHON'] ?? '/usr/bin/python3';

/** The torch version of a Python, or undefined where it has none. */
export function torchVersion(python: string): string | undefined {
  const asked = spawnSync(python, ['-c', 'import torch; print(torch.__version__)'], { encoding: 'utf8' });
  return asked.status === 0 ? asked.stdout.trim() : undefined;
}

/** The script bench/peers/NAME as a process that works on request. */
export function startPython(
  python: string,
  script: string,
  env: Readonly<NodeJS.ProcessEnv> = process.env,
): LineProcess {
  const file = path.join(packageRoot(), 'bench/peers', script);
  return new LineProcess(`the peer ${script}`, python, [file], { ...env, PYTHONDONTWRITEBYTECODE: '1' });
}

/** A python3-torch process (bench/peers/NAME) that works on request, so that both sides can take turns. Null where it is absent. */
export async function startTorchPeer(script: string, settings: object): Promise<TorchPeer | null> {
  if (torchVersion(debianPython()) === undefined) {
    process.stderr.write(
      'python3-torch is not installed (apt-get install -y python3-torch): no peer to compare with\n',
    );
    return null;
  }
  const child = startPython(debianPython(), script);
  await child.ask(settings);
  return { run: async (n) => (await child.ask(n)) as number[], close: () => child.close() };
}
