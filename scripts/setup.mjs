// Brings a checkout to where covey runs: npm packages, Debian packages (as root, where apt exists), the tfjs bundle, the
// native engine, the compiled program. Idempotent; quick and silent when there is nothing to do.
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import {
  compile,
  debianPackages,
  nativeAddon,
  npmPackages,
  ROOT,
  SetupError,
  say,
  tfjsBundle,
} from './setup-steps.mjs';

const LOCK = path.join(ROOT, 'build/setup.lock');
const LOCK_WAIT_MS = 15 * 60_000;
const NODE_MIN = [20, 15];

function processLives(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}

/** Two set-ups in one checkout would undo each other's work: the second waits. A lock whose holder is gone is taken over. */
async function holdingLock(work) {
  mkdirSync(path.dirname(LOCK), { recursive: true });
  const deadline = Date.now() + LOCK_WAIT_MS;
  for (let said = false; ; ) {
    try {
      const file = openSync(LOCK, 'wx');
      writeSync(file, String(process.pid));
      closeSync(file);
      break;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
      const holder = existsSync(LOCK) ? Number(readFileSync(LOCK, 'utf8')) : 0;
      if (holder > 0 && !processLives(holder)) rmSync(LOCK, { force: true });
      else if (Date.now() > deadline)
        throw new SetupError(`another set-up (pid ${holder}) holds ${LOCK}; remove the file if it is gone`);
      else {
        if (!said) say(`waiting for another set-up (pid ${holder})`);
        said = true;
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    }
  }
  try {
    return await work();
  } finally {
    rmSync(LOCK, { force: true });
  }
}

/** All steps, in order. Throws SetupError where covey cannot run without the step. */
export async function setup() {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major < NODE_MIN[0] || (major === NODE_MIN[0] && minor < NODE_MIN[1])) {
    throw new SetupError(`Node ${NODE_MIN.join('.')} or newer is needed, this is ${process.versions.node}`);
  }
  await holdingLock(async () => {
    await npmPackages();
    await debianPackages();
    await tfjsBundle();
    await nativeAddon();
    await compile();
  });
}

/** As a script's first line: sets up or says why not and exits with 5 (a precondition failed). */
export async function setupOrExit() {
  try {
    await setup();
  } catch (error) {
    say(error instanceof SetupError ? error.message : error.stack);
    process.exit(5);
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  await setupOrExit();
  if (!process.argv.includes('--quiet')) say('ready: `npm run demo`, or `npm run covey -- --help`');
}
