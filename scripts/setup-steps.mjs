// What `npm run demo`, `npm test` and the others need before they can start, as small steps. Node built-ins only: on a fresh
// clone there are no packages yet. Each step is skipped, silently, when its result is already there.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const BUILD = path.join(ROOT, 'build');
const LOG = path.join(BUILD, 'setup.log');
const SOURCE_FOLDERS = ['proto', 'common', 'engine', 'models', 'coordinator', 'worker', 'transfer', 'cli', 'bench'];
/** After a failed apt-get the next starts do not try again for this long: they only say what is missing. */
const APT_RETRY_MS = 60 * 60 * 1000;
const STILL_AT_IT_MS = 20_000;

/** A step that failed in a way the person must mend; the message says how. */
export class SetupError extends Error {}

/** Messages go to stderr: stdout belongs to whatever runs afterwards (`--json` must stay pure). */
export function say(line) {
  process.stderr.write(`covey setup: ${line}\n`);
}

/** Runs a command with its output in build/setup.log; on failure the tail of the output is in the error. */
export function runLogged(label, command, args, options = {}) {
  mkdirSync(BUILD, { recursive: true });
  appendFileSync(LOG, `\n$ ${command} ${args.join(' ')}\n`);
  const startedAt = Date.now();
  say(`${label} …`);
  const seconds = () => Math.round((Date.now() - startedAt) / 1000);
  const ticker = setInterval(() => say(`${label}: still at it (${seconds()} s)`), STILL_AT_IT_MS);
  return new Promise((resolve, reject) => {
    let tail = '';
    const child = spawn(command, args, {
      cwd: ROOT,
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: 15 * 60_000,
      ...options,
    });
    const keep = (chunk) => {
      appendFileSync(LOG, chunk);
      tail = (tail + chunk).slice(-4000);
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    const finish = (problem) => {
      clearInterval(ticker);
      if (problem) {
        const lines = tail.trimEnd().split('\n').slice(-15).join('\n  ');
        reject(new SetupError(`${label} failed: ${problem}\n  ${lines}\n  (all of it: build/setup.log)`));
      } else {
        say(`${label}: done (${seconds()} s)`);
        resolve(tail);
      }
    };
    child.on('error', (error) => finish(error.message));
    child.on('close', (code, signal) => finish(code === 0 ? undefined : `exit ${code ?? signal}`));
  });
}

/** Names of packages that the lock file wants and node_modules has not, or has in another version. */
export function missingPackages(root = ROOT) {
  const installedFile = path.join(root, 'node_modules/.package-lock.json');
  if (!existsSync(installedFile)) return ['(all)'];
  const wanted = JSON.parse(readFileSync(path.join(root, 'package-lock.json'), 'utf8')).packages;
  const installed = JSON.parse(readFileSync(installedFile, 'utf8')).packages;
  return Object.entries(wanted)
    .filter(([name, entry]) => name !== '' && !entry.optional && installed[name]?.version !== entry.version)
    .map(([name]) => name.replace(/^node_modules\//, ''));
}

export async function npmPackages() {
  if (missingPackages().length === 0) return;
  // --ignore-scripts: no package that covey uses needs its install script. ci: the lock file stays as it is.
  await runLogged('installing npm packages', 'npm', [
    'ci',
    '--ignore-scripts',
    '--include=dev',
    '--no-audit',
    '--no-fund',
  ]);
}

/** Full path of a program on PATH or in the system's sbin folders (where Debian puts nats-server), or undefined. */
export function findProgram(name, environment = process.env) {
  const folders = [...(environment.PATH ?? '').split(path.delimiter), '/usr/sbin', '/usr/local/sbin', '/usr/local/bin'];
  return folders.map((folder) => path.join(folder, name)).find((file) => file.startsWith('/') && existsSync(file));
}

function debianHas(name) {
  // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg-query's own placeholder
  const asked = spawnSync('dpkg-query', ['-W', '-f', '${Status}', name], { encoding: 'utf8' });
  return asked.status === 0 && asked.stdout.includes('ok installed');
}

/** Debian packages that would give what is missing on this machine. */
export function missingDebianPackages(environment = process.env) {
  const missing = [];
  if (!environment.COVEY_LIBTORCH) {
    if (!existsSync('/usr/include/torch') && !debianHas('libtorch-dev')) missing.push('libtorch-dev');
    if (!debianHas('libopenblas0-openmp')) missing.push('libopenblas0-openmp');
  }
  if (!findProgram('g++', environment)) missing.push('g++');
  if (!environment.COVEY_NATS_SERVER && !findProgram('nats-server', environment)) missing.push('nats-server');
  return missing;
}

export async function debianPackages() {
  const missing = missingDebianPackages();
  if (missing.length === 0) return;
  const command = `apt-get install -y --no-install-recommends ${missing.join(' ')}`;
  const consequence = missing.includes('nats-server')
    ? 'there is no nats-server: a cluster cannot start until one is on PATH or named by COVEY_NATS_SERVER'
    : 'covey goes on with the slower engine `wasm`';
  const failedStamp = path.join(BUILD, 'apt-failed.stamp');
  const root = process.getuid?.() === 0;
  const recentlyFailed = existsSync(failedStamp) && Date.now() - statSync(failedStamp).mtimeMs < APT_RETRY_MS;
  if (!root || !findProgram('apt-get') || recentlyFailed) {
    say(
      `missing: ${missing.join(', ')}. Install with \`${root ? '' : 'sudo '}${command}\`. Until then ${consequence}.`,
    );
    return;
  }
  try {
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    const wait = ['-o', 'DPkg::Lock::Timeout=300'];
    await runLogged('reading Debian package lists', 'apt-get', [...wait, 'update'], { env });
    const install = [...wait, 'install', '-y', '--no-install-recommends', ...missing];
    await runLogged(`installing Debian packages ${missing.join(', ')}`, 'apt-get', install, { env });
    rmSync(failedStamp, { force: true });
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    writeFileSync(failedStamp, '');
    say(`${error.message}\nInstall by hand with \`${command}\`. Until then ${consequence}.`);
  }
}

function filesBelow(folder, matches) {
  const absolute = path.join(ROOT, folder);
  if (!existsSync(absolute)) return [];
  return readdirSync(absolute, { withFileTypes: true }).flatMap((entry) => {
    const relative = path.join(folder, entry.name);
    if (entry.isDirectory()) return filesBelow(relative, matches);
    return matches(entry.name) ? [relative] : [];
  });
}

/** Hash of the names, sizes and times of files: enough to see a change, and quick. */
function fingerprint(files) {
  const hash = createHash('sha256');
  for (const file of files.sort()) {
    const { size, mtimeMs } = statSync(path.join(ROOT, file));
    hash.update(`${file}\0${size}\0${mtimeMs}\n`);
  }
  return hash.digest('hex');
}

/** Runs `work` unless the stamp says that it already ran on these very inputs and its result is still there. */
async function stamped(name, inputs, result, work) {
  const stampFile = path.join(BUILD, `${name}.stamp`);
  const mark = fingerprint(inputs);
  const fresh = () =>
    existsSync(path.join(ROOT, result)) && existsSync(stampFile) && readFileSync(stampFile, 'utf8') === mark;
  if (fresh()) return;
  await work();
  mkdirSync(BUILD, { recursive: true });
  writeFileSync(stampFile, mark);
}

export async function tfjsBundle() {
  const inputs = ['package-lock.json', 'scripts/build-tfjs.mjs'];
  await stamped('tfjs', inputs, 'build/tfjs.mjs', () =>
    runLogged('bundling tfjs', process.execPath, ['scripts/build-tfjs.mjs']),
  );
}

export async function nativeAddon() {
  const script = 'scripts/build-addon.mjs';
  if (!existsSync(path.join(ROOT, script)) || ['wasm', 'cpu'].includes(process.env.COVEY_ENGINE)) return;
  // The script keeps its own stamp and says by itself what is missing; here it is only asked when it may have something to do.
  const inputs = [
    'package-lock.json',
    script,
    'scripts/find-libtorch.mjs',
    'scripts/addon-path.mjs',
    ...filesBelow('engine/native', (name) => !name.endsWith('.ts')),
  ];
  const buildable = existsSync('/usr/include/torch') || process.env.COVEY_LIBTORCH;
  if (!buildable) return;
  // A libtorch or a place that is named now need not be those of the last time: the script finds out.
  if (process.env.COVEY_LIBTORCH || process.env.COVEY_ADDON) {
    const { status } = spawnSync(process.execPath, [script, '--check'], { cwd: ROOT, stdio: 'ignore' });
    if (status !== 0) await runLogged('building the native engine', process.execPath, [script]);
    return;
  }
  await stamped('addon-setup', inputs, 'build/covey_engine.node', async () => {
    const output = await runLogged('building the native engine', process.execPath, [script]);
    if (!existsSync(path.join(BUILD, 'covey_engine.node')))
      say(`the native engine was not built: ${output.trim().split('\n').at(-1)}`);
  });
}

export async function compile() {
  const sources = SOURCE_FOLDERS.flatMap((folder) => filesBelow(folder, (name) => /\.(ts|json)$/.test(name)));
  const inputs = [...sources, 'tsconfig.json', 'tsconfig.build.json', 'package-lock.json'];
  await stamped('compile', inputs, 'dist/cli/main.js', () =>
    runLogged('compiling', process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.build.json']),
  );
}
