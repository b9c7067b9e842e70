// Builds the native engine with g++ against libtorch into build/covey_engine.node, or the file that COVEY_ADDON names. Which libtorch:
// find-libtorch.mjs; with a CUDA build of it the addon can use GPUs, though no CUDA header is read. Needs node and g++ only, no npm packages
// (node_api.h: COVEY_NODE_HEADERS, the package node-api-headers, or the headers beside node itself), so that a bare GPU machine can run it.
// Optional: without libtorch or a compiler it says so and exits 0; where COVEY_LIBTORCH asked for a particular one, 1.
// A stamp of sources, flags and library makes a second call return at once; `--check` builds nothing and exits 3 where there is something to do. `-march=native`: the addon is built on the machine that runs it.
import { execFile, execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { addonPath } from './addon-path.mjs';
import { findLibtorch, NoLibtorch } from './find-libtorch.mjs';

const root = path.dirname(path.dirname(new URL(import.meta.url).pathname));
const sourceFolder = path.join(root, 'engine/native');
const target = addonPath();
const stampFile = target.replace(/(\.node)?$/, '.stamp');
const objects = path.join(path.dirname(target), `native-${path.basename(target, '.node')}`);
const install = 'apt-get install -y libtorch-dev libopenblas0-openmp g++';
const run = promisify(execFile);

function giveUp(reason) {
  console.log(`covey: native engine not built: ${reason}. Go on with the slow \`cpu\` engine, or: ${install}`);
  process.exit(process.env.COVEY_LIBTORCH ? 1 : 0);
}

function compilerVersion(compiler) {
  try {
    return execFileSync(compiler, ['--version'], { encoding: 'utf8' }).split('\n')[0];
  } catch {
    return giveUp(`no C++ compiler (${compiler})`);
  }
}

function libtorchOrGiveUp() {
  try {
    return findLibtorch(process.env.COVEY_LIBTORCH);
  } catch (error) {
    if (!(error instanceof NoLibtorch)) throw error;
    return giveUp(error.message);
  }
}

function nodeHeaders() {
  const candidates = [
    process.env.COVEY_NODE_HEADERS,
    packagedHeaders(),
    path.join(process.execPath, '../../include/node'),
  ];
  const found = candidates.find((folder) => folder && existsSync(path.join(folder, 'node_api.h')));
  return found ?? giveUp('node_api.h is nowhere: `npm ci`, or set COVEY_NODE_HEADERS to the folder that holds it');
}

function packagedHeaders() {
  try {
    return createRequire(import.meta.url)('node-api-headers').include_dir;
  } catch {
    return undefined;
  }
}

function flagsFor(libtorch) {
  return [
    `-std=${libtorch.standard}`,
    '-O3',
    '-fPIC',
    '-march=native',
    '-fno-math-errno',
    '-fno-trapping-math',
    '-fopenmp',
    '-Wall',
    '-Wno-psabi',
    '-Wno-unknown-pragmas',
    `-D_GLIBCXX_USE_CXX11_ABI=${libtorch.newAbi ? 1 : 0}`,
    '-DAT_PARALLEL_OPENMP=1',
    '-DNAPI_VERSION=8',
    `-DCOVEY_TORCH_VERSION="${libtorch.version}${libtorch.cuda ? `, CUDA ${libtorch.cuda}` : ''}"`,
    ...[nodeHeaders(), ...libtorch.includes].map((include) => `-isystem${include}`),
  ];
}

/** Nothing of ours names a symbol of the CUDA libraries: they register themselves when they are loaded, so the linker must not drop them. */
function librariesOf(libtorch) {
  return [
    ...(libtorch.lib ? [`-L${libtorch.lib}`, `-Wl,-rpath,${libtorch.lib}`] : []),
    '-Wl,--no-as-needed',
    '-ltorch_cpu',
    '-lc10',
    ...(libtorch.hasCudaLibrary ? ['-ltorch_cuda', '-lc10_cuda', '-Wl,--allow-shlib-undefined'] : []),
  ];
}

function stampOf(parts, files) {
  const hash = createHash('sha256').update(JSON.stringify(parts));
  for (const file of files) hash.update(file).update(readFileSync(path.join(sourceFolder, file)));
  return hash.digest('hex');
}

/** Each object has its own stamp: after a change in one source only that one is compiled. */
async function compileAll(compiler, sources, { flags, stampFor }) {
  const queue = [...sources];
  const compileNext = async () => {
    for (let source = queue.shift(); source !== undefined; source = queue.shift()) {
      const object = objectOf(source);
      const stamp = stampFor(source);
      if (existsSync(object) && existsSync(`${object}.stamp`) && readFileSync(`${object}.stamp`, 'utf8') === stamp)
        continue;
      rmSync(`${object}.stamp`, { force: true });
      await run(compiler, [...flags, '-c', path.join(sourceFolder, source), '-o', object], { maxBuffer: 2 ** 26 });
      writeFileSync(`${object}.stamp`, stamp);
    }
  };
  await Promise.all(Array.from({ length: Math.max(1, os.availableParallelism()) }, compileNext));
}

const objectOf = (source) => path.join(objects, source.replace(/\.cc$/, '.o'));

const compiler = process.env.CXX || 'g++';
const version = compilerVersion(compiler);
const libtorch = libtorchOrGiveUp();
const flags = flagsFor(libtorch);
const libraries = librariesOf(libtorch);
const files = readdirSync(sourceFolder).sort();
const sources = files.filter((file) => file.endsWith('.cc'));
const headers = files.filter((file) => file.endsWith('.h'));
const machine = [version, flags, libraries, libtorch, os.cpus()[0]?.model];
const stamp = stampOf(machine, [...headers, ...sources]);
if (existsSync(target) && existsSync(stampFile) && readFileSync(stampFile, 'utf8') === stamp) process.exit(0);
if (process.argv.includes('--check')) process.exit(3);

mkdirSync(objects, { recursive: true });
try {
  await compileAll(compiler, sources, { flags, stampFor: (source) => stampOf(machine, [...headers, source]) });
  const scratch = `${target}.${process.pid}`;
  await run(compiler, ['-shared', '-fopenmp', ...sources.map(objectOf), ...libraries, '-o', scratch]);
  renameSync(scratch, target);
  writeFileSync(stampFile, stamp);
} catch (error) {
  rmSync(stampFile, { force: true });
  console.error(error.stderr || error.message);
  console.error('covey: the native engine does not compile against this libtorch');
  process.exit(1);
}
