import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { packageRoot } from '../../common/built-module.ts';
import { CoveyError } from '../../common/errors.ts';
import type { StoredData } from '../counted-storage.ts';
import { type KernelBackend, util } from '../tf.ts';
import type { HostAccess } from './fallback.ts';
import { requireOnOurCore } from './our-core.ts';

/** Preferred first: the one for GPUs falls back to the processor by itself. */
const PACKAGES = ['@tensorflow/tfjs-node-gpu', '@tensorflow/tfjs-node'];

const ADVICE =
  'run `npm run tensorflow:build`, install @tensorflow/tfjs-node, or name its folder in COVEY_TFJS_NODE (docs/engines.md)';

/** A tensor's state in tfjs-node: values that TensorFlow has not seen yet, or a handle. */
export interface TfjsNodeRecord {
  readonly shape: number[];
  readonly dtype: number;
  id: number;
  values: unknown;
}

/** Bytes of one element by TensorFlow's number of its type: float, int32, complex64 and bool. Strings count as nothing. */
const ELEMENT_BYTES: Readonly<Record<number, number>> = { 1: 4, 3: 4, 8: 8, 10: 1 };

export function bytesOfRecord({ shape, dtype }: TfjsNodeRecord): number {
  return util.sizeFromShape(shape) * (ELEMENT_BYTES[dtype] ?? 0);
}

/** The members of tfjs-node's backend that the engine uses. */
export interface TfjsNodeBackend extends HostAccess {
  readonly isUsingGpuDevice: boolean;
  readonly tensorMap: StoredData<TfjsNodeRecord>;
  readonly binding: {
    readonly TF_Version: string;
    createTensor(shape: number[], dtype: number, values: unknown): number;
    deleteTensor(id: number): void;
  };
}

/** Folder of the installed tfjs-node or tfjs-node-gpu; undefined where there is none. COVEY_TFJS_NODE goes before all others. */
export function findTfjsNode(environment: Readonly<NodeJS.ProcessEnv> = process.env): string | undefined {
  if (environment['COVEY_TFJS_NODE']) return path.resolve(environment['COVEY_TFJS_NODE']);
  const root = packageRoot();
  const places = [root, path.join(root, 'build', 'tensorflow')];
  for (const place of places) {
    const require = createRequire(path.join(place, 'package.json'));
    for (const name of PACKAGES) {
      try {
        return path.dirname(require.resolve(`${name}/package.json`));
      } catch {
        // not installed here
      }
    }
  }
  return undefined;
}

/** The binding for the newest Node-API version that this Node speaks. */
function findBinding(folder: string): string | undefined {
  const spoken = Number(process.versions.napi);
  const lib = path.join(folder, 'lib');
  if (!existsSync(lib)) return undefined;
  const versions = readdirSync(lib)
    .map((name) => Number(/^napi-v(\d+)$/.exec(name)?.[1] ?? Number.NaN))
    .filter((version) => version <= spoken)
    .sort((a, b) => b - a);
  return versions.map((version) => path.join(lib, `napi-v${version}`, 'tfjs_binding.node')).find(existsSync);
}

/** tfjs-node 4.22 calls two functions of `util` that Node 23 has dropped. */
function restoreUtil(): void {
  const util = createRequire(import.meta.url)('node:util') as Record<string, unknown>;
  util['isNullOrUndefined'] ??= (value: unknown) => value === null || value === undefined;
  util['isArray'] ??= Array.isArray;
}

/**
 * tfjs-node's backend and kernels on our tfjs-core. Its own entry is left alone: that would load a second tfjs with layers, savers and all.
 *
 * @throws UNSUPPORTED where the package or its binding is absent or does not load
 */
export function loadTfjsNode(): TfjsNodeBackend & KernelBackend {
  const folder = findTfjsNode();
  const fail = (reason: string, cause?: unknown) =>
    new CoveyError('UNSUPPORTED', `Cannot load the tensorflow engine: ${reason}; ${ADVICE}`, {
      ...(cause === undefined ? {} : { cause }),
    });
  if (folder === undefined) throw fail('neither @tensorflow/tfjs-node-gpu nor @tensorflow/tfjs-node is installed');
  const manifest = path.join(folder, 'package.json');
  if (!existsSync(manifest)) throw fail(`${folder} holds no package.json`);
  const binding = findBinding(folder);
  if (binding === undefined) throw fail(`${folder} has no binding for Node-API ${process.versions.napi}`);
  try {
    restoreUtil();
    const native: unknown = createRequire(manifest)(binding);
    const { NodeJSKernelBackend } = requireOnOurCore(path.join(folder, 'dist', 'nodejs_kernel_backend.js')) as {
      NodeJSKernelBackend: new (binding: unknown, packageName: string) => TfjsNodeBackend & KernelBackend;
    };
    requireOnOurCore(path.join(folder, 'dist', 'register_all_kernels.js'));
    const { name } = JSON.parse(readFileSync(manifest, 'utf8')) as { name: string };
    return new NodeJSKernelBackend(native, name);
  } catch (thrown) {
    throw fail(CoveyError.from(thrown).message, thrown);
  }
}
