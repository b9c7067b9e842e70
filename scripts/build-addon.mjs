// Builds the native engine into build/covey_engine.node with g++ against libtorch: Debian's libtorch-dev, or a folder with include/ and lib/
// named by COVEY_LIBTORCH (for example the `torch` folder of a pip wheel). Optional: without libtorch or a compiler it says so and exits 0.
// A stamp of sources, flags and library makes a second call return at once. `-march=native`: the addon is built on the machine that runs it.
import { execFile, execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';

const root = path.dirname(path.dirname(new URL(import.meta.url).pathname));
const sourceFolder = path.join(root, 'engine/native');
const target = path.join(root, 'build/covey_engine.node');
const stampFile = path.join(root, 'build/covey_engine.stamp');
const install = 'apt-get install -y libtorch-dev libopenblas0-openmp g++';

function giveUp(reason) {
  console.log(`covey: native engine not built: ${reason}. Go on with the slow \`cpu\` engine, or: ${install}`);
  process.exit(0);
}

function findLibtorch() {
  const folder = process.env.COVEY_LIBTORCH;
  if (folder) {
    if (!existsSync(path.join(folder, 'include/ATen/ATen.h')))
      giveUp(`COVEY_LIBTORCH=${folder} has no include/ATen/ATen.h`);
    const include = path.join(folder, 'include');
    return { includes: [include, path.join(include, 'torch/csrc/api/include')], lib: path.join(folder, 'lib') };
  }
  if (!existsSync('/usr/include/ATen/ATen.h')) giveUp('libtorch is not installed');
  return { includes: ['/usr/include/torch/csrc/api/include'], lib: undefined };
}

function compilerVersion(compiler) {
  try {
    return execFileSync(compiler, ['--version'], { encoding: 'utf8' }).split('\n')[0];
  } catch {
    return giveUp(`no C++ compiler (${compiler})`);
  }
}

const compiler = process.env.CXX || 'g++';
const version = compilerVersion(compiler);
const libtorch = findLibtorch();
const nodeHeaders = createRequire(import.meta.url)('node-api-headers').include_dir;
const flags = [
  '-std=c++17',
  '-O3',
  '-fPIC',
  '-march=native',
  '-fno-math-errno',
  '-fno-trapping-math',
  '-fopenmp',
  '-Wall',
  '-Wno-psabi',
  '-Wno-unknown-pragmas',
  '-D_GLIBCXX_USE_CXX11_ABI=1',
  '-DAT_PARALLEL_OPENMP=1',
  '-DNAPI_VERSION=8',
  ...[nodeHeaders, ...libtorch.includes].map((include) => `-isystem${include}`),
];
const libraries = [
  ...(libtorch.lib ? [`-L${libtorch.lib}`, `-Wl,-rpath,${libtorch.lib}`] : []),
  '-Wl,--no-as-needed',
  '-ltorch_cpu',
  '-lc10',
];
const sources = readdirSync(sourceFolder)
  .filter((file) => file.endsWith('.cc'))
  .sort();
const hash = createHash('sha256').update(JSON.stringify([version, flags, libraries, libtorch, os.cpus()[0]?.model]));
for (const file of readdirSync(sourceFolder)
  .filter((name) => /\.(cc|h)$/.test(name))
  .sort()) {
  hash.update(file).update(readFileSync(path.join(sourceFolder, file)));
}
const stamp = hash.digest('hex');
if (existsSync(target) && existsSync(stampFile) && readFileSync(stampFile, 'utf8') === stamp) process.exit(0);

const objects = path.join(root, 'build/native');
mkdirSync(objects, { recursive: true });
const torchVersionHeader = [
  ...libtorch.includes.map((include) => path.join(include, 'torch/version.h')),
  '/usr/include/torch/csrc/api/include/torch/version.h',
].find(existsSync);
const versionText = torchVersionHeader ? readFileSync(torchVersionHeader, 'utf8') : '';
const torchVersion = ['MAJOR', 'MINOR', 'PATCH']
  .map((part) => new RegExp(`TORCH_VERSION_${part} (\\d+)`).exec(versionText)?.[1] ?? '?')
  .join('.');
const run = promisify(execFile);
const queue = [...sources];
async function worker() {
  for (let source = queue.shift(); source !== undefined; source = queue.shift()) {
    const object = path.join(objects, source.replace(/\.cc$/, '.o'));
    await run(
      compiler,
      [...flags, `-DCOVEY_TORCH_VERSION="${torchVersion}"`, '-c', path.join(sourceFolder, source), '-o', object],
      { maxBuffer: 2 ** 26 },
    );
  }
}
try {
  await Promise.all(Array.from({ length: Math.max(1, os.availableParallelism()) }, worker));
  const scratch = `${target}.${process.pid}`;
  await run(compiler, [
    '-shared',
    '-fopenmp',
    ...sources.map((source) => path.join(objects, source.replace(/\.cc$/, '.o'))),
    ...libraries,
    '-o',
    scratch,
  ]);
  renameSync(scratch, target);
  writeFileSync(stampFile, stamp);
} catch (error) {
  rmSync(stampFile, { force: true });
  console.error(error.stderr || error.message);
  console.error('covey: the native engine does not compile against this libtorch');
  process.exit(1);
}
