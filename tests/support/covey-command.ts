import { execFile } from 'node:child_process';
import path from 'node:path';
import { processEnvironment } from '../../cli/process-environment.ts';
import { packageRoot } from '../../common/built-module.ts';

/** The compiled command. */
export const COVEY_MAIN = path.join(packageRoot(), 'dist', 'cli', 'main.js');

export interface CommandOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** User to run as. */
  readonly uid?: number;
  /** Largest file the process may write, in bytes: what a disk that fills up looks like. */
  readonly fileBytesMax?: number;
  /** After so long it is killed with SIGKILL. Default two minutes. */
  readonly timeoutMs?: number;
  /** It is killed with SIGKILL as soon as this is on its stderr. */
  readonly killWhenSaid?: string;
  /** For node itself, before the command. */
  readonly nodeArguments?: readonly string[];
}

export interface CommandOutcome {
  /** Exit code; 128 and more where a signal ended it, as a shell says it. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

const TIMEOUT_MS = 120_000;
const SIGKILL_CODE = 137;
const FILE_BLOCK_BYTES = 512;

/** Runs `covey` in a process of its own. */
export function runCovey(given: readonly string[], options: CommandOptions = {}): Promise<CommandOutcome> {
  const { cwd, env, uid, fileBytesMax, timeoutMs = TIMEOUT_MS, killWhenSaid, nodeArguments = [] } = options;
  const node = [process.execPath, ...nodeArguments, COVEY_MAIN, ...given];
  const limit = ['/bin/sh', '-c', `ulimit -f ${Math.floor((fileBytesMax ?? 0) / FILE_BLOCK_BYTES)}; exec "$0" "$@"`];
  const [program, ...rest] = fileBytesMax === undefined ? node : [...limit, ...node];
  const settings = {
    env: { ...processEnvironment(process.env), NO_COLOR: '1', ...env },
    timeout: timeoutMs,
    killSignal: 'SIGKILL' as const,
    maxBuffer: 2 ** 26,
    ...(cwd === undefined ? {} : { cwd }),
    ...(uid === undefined ? {} : { uid }),
  };
  return new Promise((resolve) => {
    const child = execFile(program!, rest, settings, (error, stdout, stderr) => {
      const code = error === null ? 0 : typeof error.code === 'number' ? error.code : SIGKILL_CODE;
      resolve({ code, stdout, stderr });
    });
    if (killWhenSaid === undefined) return;
    let said = '';
    child.stderr!.on('data', (chunk) => {
      said += String(chunk);
      if (said.includes(killWhenSaid)) child.kill('SIGKILL');
    });
  });
}
