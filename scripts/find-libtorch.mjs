// Where libtorch is and what it asks of a compiler, found out without importing torch and without CUDA headers.
//   COVEY_LIBTORCH unset          Debian's libtorch-dev
//   COVEY_LIBTORCH=<folder>       a folder with include/ and lib/, for example the `torch` folder of a wheel
//   COVEY_LIBTORCH=pip[:python]   the torch that this Python (default python3) would import
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';

const DEBIAN_HEADER = '/usr/include/ATen/ATen.h';
/** The constructor of c10::Error over the strings of the new C++ ABI: in libc10 exactly where it was compiled with that ABI. */
const NEW_ABI_SYMBOL = '_ZN3c105ErrorC1ENS_14SourceLocationENSt7__cxx1112basic_string';

/** A reason to go on without libtorch: what is missing, for a person. */
export class NoLibtorch extends Error {}

/** @returns the folder of the package, which is found, not imported: a wheel whose driver is missing is good enough to build against */
function pipFolder(python) {
  const script =
    'import importlib.util as u; s = u.find_spec("torch"); print(s.submodule_search_locations[0] if s else "")';
  let folder;
  try {
    folder = execFileSync(python, ['-c', script], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch {
    throw new NoLibtorch(`${python} does not run`);
  }
  if (folder === '') throw new NoLibtorch(`${python} has no package torch`);
  // Debian's python3-torch keeps its headers and libraries elsewhere.
  return existsSync(path.join(folder, 'include/ATen/ATen.h')) ? folder : undefined;
}

function textOf(files) {
  const file = files.find(existsSync);
  return file === undefined ? '' : readFileSync(file, 'utf8');
}

function versionIn(text) {
  return ['MAJOR', 'MINOR', 'PATCH']
    .map((part) => new RegExp(`TORCH_VERSION_${part} (\\d+)`).exec(text)?.[1] ?? '?')
    .join('.');
}

function describeDebian() {
  if (!existsSync(DEBIAN_HEADER)) throw new NoLibtorch('libtorch is not installed');
  const include = '/usr/include/torch/csrc/api/include';
  const version = versionIn(textOf([path.join(include, 'torch/version.h')]));
  return {
    includes: [include],
    lib: undefined,
    version,
    cuda: undefined,
    standard: 'c++17',
    newAbi: true,
    hasCudaLibrary: false,
  };
}

function describeFolder(folder) {
  const include = path.join(folder, 'include');
  const lib = path.join(folder, 'lib');
  const header = path.join(include, 'ATen/ATen.h');
  if (!existsSync(header)) throw new NoLibtorch(`COVEY_LIBTORCH: ${folder} has no include/ATen/ATen.h`);
  const library = path.join(lib, 'libc10.so');
  if (!existsSync(library)) throw new NoLibtorch(`COVEY_LIBTORCH: ${folder} has no lib/libc10.so`);
  const api = path.join(include, 'torch/csrc/api/include');
  const python = textOf([path.join(folder, 'version.py')]);
  return {
    includes: [include, api],
    lib,
    version: versionIn(textOf([path.join(include, 'torch/headeronly/version.h'), path.join(api, 'torch/version.h')])),
    cuda: /^cuda\b.*=\s*['"]([\d.]+)['"]/m.exec(python)?.[1],
    // The headers refuse an older standard by themselves.
    standard: /C\+\+20 or later/.test(readFileSync(header, 'utf8')) ? 'c++20' : 'c++17',
    newAbi: readFileSync(library).includes(NEW_ABI_SYMBOL),
    hasCudaLibrary: existsSync(path.join(lib, 'libtorch_cuda.so')),
  };
}

/**
 * @param wanted value of COVEY_LIBTORCH
 * @returns includes (folders), lib (undefined: the linker's own), version, cuda (toolkit version that the wheel names), standard (of C++),
 *   newAbi (std::string as of GCC 5), hasCudaLibrary
 * @throws NoLibtorch
 */
export function findLibtorch(wanted) {
  if (!wanted) return describeDebian();
  if (wanted !== 'pip' && !wanted.startsWith('pip:')) return describeFolder(wanted);
  const folder = pipFolder(wanted.slice('pip:'.length) || 'python3');
  return folder === undefined ? describeDebian() : describeFolder(folder);
}
