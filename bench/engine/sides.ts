import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { processEnvironment, recommendedSettings } from '../../cli/process-environment.ts';
import { builtModule, packageRoot } from '../../common/built-module.ts';
import { LineProcess } from '../support/line-process.ts';
import { debianPython, startPython, torchVersion } from '../support/torch-peer.ts';
import type { Ready, SideRequest, SideSettings } from './protocol.ts';

export type PeerName = 'debian' | 'newest';

/** A Python with torch to compare with. */
export interface Peer {
  readonly name: PeerName;
  readonly python: string;
}

/** A process under measurement. The first of a list of sides is covey. */
export interface Side {
  readonly name: string;
  readonly version: string;
  ask<A>(request: SideRequest): Promise<A>;
  close(): Promise<void>;
}

/** Where `bench/README.md` says to install the newest torch, and any Python of the PATH. */
const NEWEST_CANDIDATES = [path.join(packageRoot(), 'build/torch-newest/bin/python'), 'python3'];

/** The peers that are here, with one line on stderr for each that is not. */
export function findPeers(wanted: readonly PeerName[]): Peer[] {
  const peers: Peer[] = [];
  if (wanted.includes('debian')) {
    if (torchVersion(debianPython()) !== undefined) peers.push({ name: 'debian', python: debianPython() });
    else say('no peer debian: apt-get install -y python3-torch, or set COVEY_BENCH_PYTHON');
  }
  if (wanted.includes('newest')) {
    const python = newestPython();
    if (python !== undefined) peers.push({ name: 'newest', python });
    else say('no peer newest: set COVEY_BENCH_TORCH_NEW to a Python whose torch is 2 or newer (bench/README.md)');
  }
  return peers;
}

function newestPython(): string | undefined {
  const named = process.env['COVEY_BENCH_TORCH_NEW'];
  const candidates = named === undefined ? NEWEST_CANDIDATES : [named];
  return candidates.find((python) => {
    if (python.includes('/') && !existsSync(python)) return false;
    return Number(torchVersion(python)?.split('.')[0] ?? 0) >= 2;
  });
}

function say(line: string): void {
  process.stderr.write(`covey bench: ${line}\n`);
}

/**
 * The same for every side: OpenMP's and malloc's own defaults, which PyTorch's users have, unless the person has set others. An idle
 * side's threads then spin for some milliseconds after its turn and sleep. `worker`: as covey starts its workers instead.
 */
export function sideEnvironment(threads: number, worker = false): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = { ...process.env, OMP_NUM_THREADS: String(threads) };
  for (const [key, recommended] of Object.entries(recommendedSettings())) {
    if (!worker && env[key] === recommended) delete env[key];
  }
  return worker ? processEnvironment(env) : env;
}

/** Starts one process of covey's. `worker`: with the environment in which covey starts its workers. */
export async function startOurs(settings: SideSettings, worker = false): Promise<Side> {
  const module = fileURLToPath(builtModule('bench/engine/side'));
  return opened(
    'covey',
    new LineProcess('covey', process.execPath, [module], sideEnvironment(settings.threads, worker)),
    settings,
  );
}

/** Starts covey and the peers, all ready and idle. */
export async function startSides(settings: SideSettings, peers: readonly Peer[]): Promise<Side[]> {
  const sides: Side[] = [];
  try {
    sides.push(await startOurs(settings));
    for (const { name, python } of peers) {
      sides.push(await opened(name, startPython(python, 'engine.py', sideEnvironment(settings.threads)), settings));
    }
  } catch (thrown) {
    await closeAll(sides);
    throw thrown;
  }
  return sides;
}

export async function closeAll(sides: readonly Side[]): Promise<void> {
  for (const side of sides) await side.close();
}

async function opened(name: string, process: LineProcess, settings: SideSettings): Promise<Side> {
  const { version } = (await process.ask(settings)) as Ready;
  return {
    name,
    version,
    ask: async <A>(request: SideRequest) => (await process.ask(request)) as A,
    close: () => process.close(),
  };
}
