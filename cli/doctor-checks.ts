import { randomUUID } from 'node:crypto';
import { statfs } from 'node:fs/promises';
import net from 'node:net';
import { arch, availableParallelism, platform } from 'node:os';
import { CoveyError } from '../common/errors.ts';
import { findNatsServer, startNatsServer } from '../common/nats-server.ts';
import type { ObjectStore } from '../common/objectstore/object-store.ts';
import { ENGINE_NAMES, type EngineName, engineCapabilities } from '../engine/capabilities.ts';
import { findDevices } from '../engine/devices.ts';
import { loadEngine } from '../engine/index.ts';
import type { CommandContext } from './context.ts';
import { formatBytes } from './format.ts';
import { withStore } from './open-store.ts';
import { recommendedSettings } from './process-environment.ts';

/** One thing looked at. `mend` is the command or change that makes it ok. */
export interface DoctorCheck {
  readonly name: string;
  readonly state: 'ok' | 'warn' | 'fail';
  readonly found: string;
  readonly mend?: string;
}

const NODE_MIN = [20, 15] as const;
/** A tensor chunk with its header. */
const NATS_PAYLOAD_BYTES_MIN = 2 ** 20;
const DISK_FREE_BYTES_MIN = 2 * 2 ** 30;
const STORE_TIMEOUT_MS = 15_000;

export function checkNode(version: string = process.versions.node): DoctorCheck {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const enough = major > NODE_MIN[0] || (major === NODE_MIN[0] && minor >= NODE_MIN[1]);
  const found = `${version}, ${platform()} ${arch()}, ${availableParallelism()} cores`;
  return { name: 'node', state: enough ? 'ok' : 'fail', found, mend: `install Node ${NODE_MIN.join('.')} or newer` };
}

/**
 * Loads every engine for real, a file that is there may still not load. Only the absence of `torch` is worth a warning: the others are
 * asked for by name.
 */
export async function checkEngines(): Promise<DoctorCheck[]> {
  const checks: DoctorCheck[] = [];
  for (const name of ENGINE_NAMES) checks.push(await checkEngine(name));
  return checks;
}

async function checkEngine(name: EngineName): Promise<DoctorCheck> {
  const label = `engine ${name}`;
  try {
    const engine = await loadEngine({ engine: name, threads: availableParallelism() });
    try {
      return { name: label, state: 'ok', found: engine.description };
    } finally {
      engine.close();
    }
  } catch (thrown) {
    const reason = CoveyError.from(thrown).message;
    const mend = engineCapabilities(name).install;
    if (name !== 'torch') return { name: label, state: 'ok', found: `not available, not needed: ${reason}`, mend };
    const found = `does not load (${reason}); covey uses the much slower engine wasm`;
    return { name: label, state: 'warn', found, mend };
  }
}

/** Says which devices the engine torch could use. None is worth no warning: covey runs on CPUs. */
export function checkDevices(): DoctorCheck {
  const mend = 'docs/gpu.md: a CUDA build of torch, COVEY_LIBTORCH=pip npm run build';
  try {
    const { devices, library } = findDevices();
    const found = `${devices.join(', ')} (${library})`;
    return { name: 'devices', state: 'ok', found, ...(devices.length === 1 ? { mend } : {}) };
  } catch (thrown) {
    return { name: 'devices', state: 'ok', found: `cpu only: ${CoveyError.from(thrown).message}`, mend };
  }
}

/** Starts the server and reads what it announces: the version and the largest message. */
export async function checkNats(context: Pick<CommandContext, 'logger' | 'signal'>): Promise<DoctorCheck> {
  const mend = 'apt-get install -y nats-server, or set COVEY_NATS_SERVER to its path';
  const binary = findNatsServer();
  if (binary === undefined) return { name: 'nats-server', state: 'fail', found: 'not on PATH', mend };
  try {
    const server = await startNatsServer({}, context);
    try {
      const info = await natsInfo(server.port);
      const state = info.max_payload >= NATS_PAYLOAD_BYTES_MIN ? 'ok' : 'fail';
      return {
        name: 'nats-server',
        state,
        found: `${binary}, version ${info.version}, max_payload ${formatBytes(info.max_payload)}`,
        mend,
      };
    } finally {
      await server.stop();
    }
  } catch (thrown) {
    return {
      name: 'nats-server',
      state: 'fail',
      found: `${binary} does not start: ${CoveyError.from(thrown).message}`,
      mend,
    };
  }
}

/** The INFO line with which a NATS server greets. */
function natsInfo(port: number): Promise<{ version: string; max_payload: number }> {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ host: '127.0.0.1', port });
    const fail = (message: string) => {
      socket.destroy();
      reject(new CoveyError('UNAVAILABLE', message));
    };
    let text = '';
    socket.setTimeout(2000, () => fail('it does not greet'));
    socket.once('error', (error) => fail(error.message));
    socket.on('data', (data) => {
      text += data.toString('utf8');
      if (!text.includes('\r\n')) return;
      socket.destroy();
      resolve(
        JSON.parse(text.slice(text.indexOf('{'), text.indexOf('\r\n'))) as { version: string; max_payload: number },
      );
    });
  });
}

export async function checkDisk(folder = process.cwd()): Promise<DoctorCheck> {
  const { bavail, bsize } = await statfs(folder);
  const free = bavail * bsize;
  const state = free >= DISK_FREE_BYTES_MIN ? 'ok' : 'warn';
  return {
    name: 'disk',
    state,
    found: `${formatBytes(free)} free in ${folder}`,
    mend: 'free some space, or set data.cacheBytesMax lower',
  };
}

export function checkPort(port: number, use: string): Promise<DoctorCheck> {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once('error', () => {
      const mend = `something listens there, perhaps a coordinator; otherwise choose another with --port or --http-port`;
      resolve({ name: `port ${port}`, state: 'warn', found: `taken; ${use}`, mend });
    });
    server.listen(port, '127.0.0.1', () =>
      server.close(() => resolve({ name: `port ${port}`, state: 'ok', found: `free; ${use}` })),
    );
  });
}

/** The settings that must be there before the process starts. `npm run covey` sets them; a bare `node` does not. */
export function checkEnvironment(env: Readonly<NodeJS.ProcessEnv>): DoctorCheck[] {
  return Object.entries(recommendedSettings()).map(([name, recommended]) => {
    const value = env[name];
    if (value !== undefined) return { name, state: 'ok', found: value };
    return {
      name,
      state: 'warn',
      found: 'not set',
      mend: `start through \`npm run covey\`, or: export ${name}=${recommended}`,
    };
  });
}

/** Writes, reads, reads a range, and lets two writers race for one name; removes what it wrote. */
export async function checkStore(url: string, context: CommandContext): Promise<DoctorCheck> {
  const signal = AbortSignal.any([context.signal, AbortSignal.timeout(STORE_TIMEOUT_MS)]);
  try {
    return await withStore(context, url, async (store) => {
      const problem = await probeStore(store, signal);
      const found = problem ?? `${store.url}: write, read, range and conditional write work`;
      return {
        name: 'store',
        state: problem ? 'fail' : 'ok',
        found,
        mend: 'use a server with conditional PUT (If-None-Match, If-Match)',
      };
    });
  } catch (thrown) {
    const error = CoveyError.from(thrown);
    const mend = 'check the URL, COVEY_S3_ENDPOINT, COVEY_S3_ACCESS_KEY and COVEY_S3_SECRET_KEY';
    return { name: 'store', state: 'fail', found: `${url}: ${error.message}`, mend };
  }
}

async function probeStore(store: ObjectStore, signal: AbortSignal): Promise<string | undefined> {
  const key = `covey-doctor/${randomUUID()}`;
  const body = Buffer.from('covey doctor');
  try {
    await store.put(key, body, { signal });
    const ranged = await store.get(key, { signal, range: { offset: 6, length: 6 } });
    if (Buffer.from(ranged.bytes).toString() !== 'doctor') return 'a ranged read returns other bytes than were written';
    const claims = await Promise.allSettled(
      ['a', 'b'].map((who) => store.put(`${key}-claim`, Buffer.from(who), { ifAbsent: true, signal })),
    );
    const won = claims.filter((claim) => claim.status === 'fulfilled').length;
    if (won !== 1) return `of two writers racing for one name ${won} won, not 1: HEAD cannot be kept safely here`;
    return undefined;
  } finally {
    await store.delete(key, { signal });
    await store.delete(`${key}-claim`, { signal });
  }
}
