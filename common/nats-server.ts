import { type ChildProcess, spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { systemClock } from './clock.ts';
import { CoveyError, throwIfAborted } from './errors.ts';
import type { Logger } from './log.ts';

export interface NatsServerOptions {
  /** 0 (default) takes a free port. */
  readonly port?: number;
  /** Default: $COVEY_NATS_SERVER, else `nats-server` on PATH (or in /usr/sbin, where Debian puts it). */
  readonly command?: string;
  /** Largest message, bytes. Must hold a chunk. Default 4 MiB. */
  readonly maxPayloadBytes?: number;
  /** What the server holds for one slow connection before it drops it, bytes. Default 256 MiB. */
  readonly maxPendingBytes?: number;
  /** How long a start may take. Default 10 000. */
  readonly startTimeoutMs?: number;
}

export interface NatsServerModules {
  readonly logger: Logger;
  readonly signal?: AbortSignal;
}

export interface NatsServerHandle {
  /** nats://127.0.0.1:PORT */
  readonly url: string;
  readonly port: number;
  /** Of nats-server itself. */
  readonly pid: number;
  /** Ends the server and waits until it is gone. Safe to call twice. */
  stop(): Promise<void>;
}

const POLL_MS = 20;
const STOP_GRACE_MS = 3000;

/**
 * A guardian shell around the server: it prints the server's pid, and ends the server when its own standard input closes, which
 * the kernel does whenever the parent dies, by whatever cause. File descriptor 3 keeps that input, because a shell gives
 * /dev/null to background commands.
 */
const GUARDIAN = `exec 3<&0
"$@" 3<&- &
server=$!
echo "$server"
( read -r _ <&3; kill -TERM "$server" 2>/dev/null ) &
watch=$!
wait "$server"
status=$?
kill "$watch" 2>/dev/null
exit "$status"`;

/** The nats-server to run, or undefined where there is none. */
export function findNatsServer(command = process.env['COVEY_NATS_SERVER']): string | undefined {
  const candidates = command
    ? [command]
    : [...(process.env['PATH'] ?? '').split(path.delimiter), '/usr/sbin', '/usr/local/sbin']
        .filter(Boolean)
        .map((folder) => path.join(folder, 'nats-server'));
  return candidates.find((file) => {
    try {
      accessSync(file, constants.X_OK);
      return true;
    } catch (thrown) {
      // Missing or not executable: the next one may do. Anything else is not about this candidate.
      if (thrown instanceof Error && 'code' in thrown) return false;
      throw thrown;
    }
  });
}

/**
 * Starts a nats-server on 127.0.0.1 and waits until it answers. It dies with this process, even by SIGKILL. GOGC is raised
 * because the server allocates per message: at 1 MiB messages this alone doubles its throughput.
 * Throws NOT_FOUND (no binary), UNAVAILABLE (it ended, e.g. the port is taken), TIMEOUT, CANCELLED.
 */
export async function startNatsServer(
  options: NatsServerOptions,
  modules: NatsServerModules,
): Promise<NatsServerHandle> {
  throwIfAborted(modules.signal);
  const binary = findNatsServer(options.command ?? process.env['COVEY_NATS_SERVER']);
  if (!binary) {
    const asked = options.command ?? process.env['COVEY_NATS_SERVER'];
    throw new CoveyError(
      'NOT_FOUND',
      `Cannot start nats-server: ${asked ? `${asked} is not an executable file` : 'it is not on PATH'}; ` +
        'install it with `apt-get install nats-server` (Debian, Ubuntu) or set COVEY_NATS_SERVER to its path',
      { fields: { command: asked ?? 'nats-server' } },
    );
  }
  const folder = await mkdtemp(path.join(os.tmpdir(), 'covey-nats-'));
  const configFile = path.join(folder, 'nats.conf');
  await writeFile(configFile, serverConfig(options, folder));
  const guardian = spawn('/bin/sh', ['-c', GUARDIAN, 'covey-nats', binary, '-c', configFile], {
    // Its own process group: an interrupt at the terminal goes to covey, which then stops the server in order.
    detached: true,
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { ...process.env, GOGC: '800', GOMEMLIMIT: '2GiB' },
  });
  const running = new RunningServer(guardian, folder);
  try {
    const port = await running.waitUntilUp(options.startTimeoutMs ?? 10_000, modules.signal);
    const pid = running.pid;
    modules.logger.debug({ port, pid, binary }, 'nats-server started');
    return { url: `nats://127.0.0.1:${port}`, port, pid, stop: () => running.stop() };
  } catch (thrown) {
    await running.stop();
    throw thrown;
  }
}

function serverConfig(options: NatsServerOptions, folder: string): string {
  const port = options.port ? options.port : -1;
  return [
    `listen: "127.0.0.1:${port}"`,
    `max_payload: ${options.maxPayloadBytes ?? 4 * 2 ** 20}`,
    `max_pending: ${options.maxPendingBytes ?? 256 * 2 ** 20}`,
    'write_deadline: "10s"',
    `ports_file_dir: ${JSON.stringify(folder)}`,
    '',
  ].join('\n');
}

class RunningServer {
  readonly #guardian: ChildProcess;
  readonly #folder: string;
  readonly #exited: Promise<void>;
  #hasExited = false;
  #output = '';
  #pidText = '';

  constructor(guardian: ChildProcess, folder: string) {
    this.#guardian = guardian;
    this.#folder = folder;
    guardian.stdout?.on('data', (data: Buffer) => {
      this.#pidText += data.toString('latin1');
    });
    // The tail of what it said: shown only when it fails to start.
    guardian.stderr?.on('data', (data: Buffer) => {
      this.#output = (this.#output + data.toString()).slice(-2000);
    });
    this.#exited = new Promise((resolve) => {
      const done = () => {
        this.#hasExited = true;
        resolve();
      };
      guardian.once('exit', done);
      guardian.once('error', done);
    });
  }

  get pid(): number {
    return Number.parseInt(this.#pidText, 10);
  }

  async waitUntilUp(timeoutMs: number, signal: AbortSignal | undefined): Promise<number> {
    const deadline = systemClock.now() + timeoutMs;
    for (;;) {
      throwIfAborted(signal);
      if (this.#hasExited) {
        throw new CoveyError(
          'UNAVAILABLE',
          `Cannot start nats-server: it ended at once: ${this.#output.trim().split('\n').at(-1)}`,
          {
            fields: { output: this.#output },
          },
        );
      }
      const port = await this.#announcedPort();
      if (port !== undefined && (await answers(port))) return port;
      if (systemClock.now() > deadline) {
        throw new CoveyError('TIMEOUT', `Cannot start nats-server: no answer within ${timeoutMs} ms`, {
          fields: { waitingFor: 'nats-server', output: this.#output },
        });
      }
      await systemClock.sleep(POLL_MS, signal);
    }
  }

  async stop(): Promise<void> {
    if (!this.#hasExited) {
      // Closing its input makes the guardian end the server; by pid as well, in case the shell was killed.
      this.#guardian.stdin?.end();
      const graceful = await Promise.race([
        this.#exited.then(() => true),
        systemClock.sleep(STOP_GRACE_MS).then(() => false),
      ]);
      if (!graceful && Number.isInteger(this.pid)) {
        killQuietly(this.pid);
        await Promise.race([this.#exited, systemClock.sleep(STOP_GRACE_MS)]);
      }
    }
    await rm(this.#folder, { recursive: true, force: true });
  }

  /** nats-server writes its chosen port to `<name>_<pid>.ports`. */
  async #announcedPort(): Promise<number | undefined> {
    if (!Number.isInteger(this.pid)) return undefined;
    const file = (await readdir(this.#folder)).find((name) => name.endsWith('.ports'));
    if (!file) return undefined;
    const text = await readFile(path.join(this.#folder, file), 'utf8');
    const port = /"nats":\s*\[\s*"nats:\/\/[^"]*:(\d+)"/.exec(text)?.[1];
    return port === undefined ? undefined : Number(port);
  }
}

/** A NATS server speaks first: INFO {...}. */
function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect({ host: '127.0.0.1', port });
    const settle = (value: boolean) => {
      socket.destroy();
      resolve(value);
    };
    socket.setTimeout(1000, () => settle(false));
    socket.once('data', (data) => settle(data.toString('latin1').startsWith('INFO')));
    socket.once('error', () => settle(false));
    socket.once('close', () => resolve(false));
  });
}

function killQuietly(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (thrown) {
    // Already gone is what was wanted.
    if (!(thrown instanceof Error && 'code' in thrown && thrown.code === 'ESRCH')) throw thrown;
  }
}
