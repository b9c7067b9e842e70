// Builds what the engine `tensorflow` needs into build/tensorflow: tfjs-node from npm (without its install script, which downloads a
// libtensorflow of 2021), the TensorFlow library out of the `tensorflow-cpu` wheel from PyPI, and tfjs-node's binding compiled against it.
// Each step is skipped when its result is there. `--gpu`: tfjs-node-gpu and the `tensorflow` wheel, whose CUDA libraries must be installed
// beside it. COVEY_TENSORFLOW names the `tensorflow` folder of an installed wheel to use instead of downloading one.
import { execFileSync, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const TFJS_NODE_VERSION = '4.22.0';
/** The wheel that the binding was tested against; another one of 2.x may work too. */
const TENSORFLOW_VERSION = process.env.COVEY_TENSORFLOW_VERSION ?? '2.21.0';
const NAPI_VERSION = 8;
const LIBRARIES = ['libtensorflow_cc.so.2', 'libtensorflow_framework.so.2'];
/** The binding includes the C API and one string header of the core; their own includes lie in these folders of the wheel. */
const HEADER_FOLDERS = ['tensorflow/c/', 'tensorflow/core/platform/', 'tsl/', 'xla/tsl/', 'absl/'];

const root = path.dirname(path.dirname(new URL(import.meta.url).pathname));
const folder = path.join(root, 'build/tensorflow');
const gpu = process.argv.includes('--gpu');
const packageName = gpu ? 'tfjs-node-gpu' : 'tfjs-node';
const wheelName = gpu ? 'tensorflow' : 'tensorflow-cpu';
const packageFolder = path.join(folder, 'node_modules/@tensorflow', packageName);
const library = path.join(folder, wheelName);
const binding = path.join(packageFolder, `lib/napi-v${NAPI_VERSION}/tfjs_binding.node`);
const stampFile = path.join(folder, 'binding.stamp');

function say(line) {
  process.stderr.write(`covey tensorflow: ${line}\n`);
}

function giveUp(reason) {
  say(`cannot build: ${reason}`);
  process.exit(5);
}

function run(label, command, args, options = {}) {
  say(`${label} …`);
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    encoding: 'utf8',
    maxBuffer: 2 ** 26,
    ...options,
  });
  if (status === 0) return stdout;
  const tail = `${stdout ?? ''}${stderr ?? ''}`.trimEnd().split('\n').slice(-15).join('\n  ');
  return giveUp(`${label} failed (${error?.message ?? `exit ${status}`})\n  ${tail}`);
}

function program(name, hint) {
  try {
    execFileSync(name, ['--version'], { stdio: 'ignore' });
    return name;
  } catch {
    return giveUp(`${name} is missing: ${hint}`);
  }
}

/** A private npm project: the package is never part of covey's own tree, where its install script would have to run. */
function installPackage() {
  if (existsSync(path.join(packageFolder, 'package.json'))) return;
  mkdirSync(folder, { recursive: true });
  const manifest = { private: true, description: "covey's engine tensorflow; written by scripts/build-tensorflow.mjs" };
  writeFileSync(path.join(folder, 'package.json'), JSON.stringify(manifest));
  const flags = ['--ignore-scripts', '--no-audit', '--no-fund', '--no-package-lock', '--save-exact'];
  const what = `@tensorflow/${packageName}@${TFJS_NODE_VERSION}`;
  run(`installing ${what} from npm, without its scripts`, 'npm', ['install', ...flags, what], { cwd: folder });
}

/** The unpacked parts of a wheel: include/ and the two libraries. */
function fetchLibrary() {
  if (existsSync(path.join(library, 'complete'))) return;
  const installed = process.env.COVEY_TENSORFLOW;
  rmSync(library, { recursive: true, force: true });
  mkdirSync(library, { recursive: true });
  if (installed) {
    for (const name of ['include', ...LIBRARIES]) {
      const source = path.resolve(installed, name);
      if (!existsSync(source)) giveUp(`COVEY_TENSORFLOW=${installed} has no ${name}`);
      symlinkSync(source, path.join(library, name));
    }
  } else {
    unpackWheel(downloadWheel());
  }
  writeFileSync(path.join(library, 'complete'), installed ?? `${wheelName} ${TENSORFLOW_VERSION}\n`);
}

function downloadWheel() {
  const python = program('python3', 'apt-get install -y python3 python3-pip');
  const target = path.join(folder, 'wheel');
  mkdirSync(target, { recursive: true });
  const wheel = () =>
    readdirSync(target).find((name) => name.startsWith(`${wheelName.replace('-', '_')}-${TENSORFLOW_VERSION}`));
  if (wheel() === undefined) {
    const what = `${wheelName}==${TENSORFLOW_VERSION}`;
    const flags = ['--no-deps', '--only-binary=:all:', '--disable-pip-version-check', '--dest', target];
    run(`downloading ${what} from PyPI (about 270 MB)`, python, ['-m', 'pip', 'download', ...flags, what]);
  }
  return path.join(target, wheel() ?? giveUp(`pip left no ${wheelName} wheel in ${target}`));
}

function unpackWheel(wheel) {
  const script = [
    'import sys, zipfile',
    'wheel, target, headers, libraries = sys.argv[1], sys.argv[2], tuple(sys.argv[3].split(",")), sys.argv[4].split(",")',
    'with zipfile.ZipFile(wheel) as archive:',
    '    for entry in archive.infolist():',
    '        name = entry.filename.split("/", 1)[-1]',
    '        if name in libraries or name.startswith(headers):',
    '            entry.filename = name',
    '            archive.extract(entry, target)',
  ].join('\n');
  const headers = HEADER_FOLDERS.map((name) => `include/${name}`).join(',');
  run('unpacking the wheel', 'python3', ['-c', script, wheel, library, headers, LIBRARIES.join(',')]);
  const missing = LIBRARIES.filter((name) => !existsSync(path.join(library, name)));
  if (missing.length > 0) giveUp(`${path.basename(wheel)} holds no ${missing.join(' and no ')}`);
  rmSync(path.dirname(wheel), { recursive: true });
}

function buildBinding() {
  const stamp = JSON.stringify([process.version, readFileSync(path.join(library, 'complete'), 'utf8')]);
  if (existsSync(binding) && existsSync(stampFile) && readFileSync(stampFile, 'utf8') === stamp) return;
  const compiler = program(process.env.CXX || 'g++', 'apt-get install -y g++');
  const headers = createRequire(import.meta.url)('node-api-headers').include_dir;
  mkdirSync(path.dirname(binding), { recursive: true });
  const scratch = `${binding}.${process.pid}`;
  run('compiling the binding', compiler, [
    ...['-std=c++17', '-O2', '-fPIC', '-shared', '-w', `-DNAPI_VERSION=${NAPI_VERSION}`],
    ...[headers, path.join(library, 'include')].map((include) => `-isystem${include}`),
    ...['tfjs_backend.cc', 'tfjs_binding.cc'].map((file) => path.join(packageFolder, 'binding', file)),
    ...LIBRARIES.map((name) => path.join(library, name)),
    `-Wl,-rpath,$ORIGIN/${path.relative(path.dirname(binding), library)}`,
    ...['-o', scratch],
  ]);
  renameSync(scratch, binding);
  writeFileSync(stampFile, stamp);
}

if (process.platform !== 'linux')
  giveUp(`only Linux wheels are known to hold the libraries, this is ${process.platform}`);
installPackage();
fetchLibrary();
buildBinding();
say(
  `ready: ${path.relative(root, packageFolder)}, ${wheelName} ${readFileSync(path.join(library, 'complete'), 'utf8').trim()}`,
);
