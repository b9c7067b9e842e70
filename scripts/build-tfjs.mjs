// Bundles tfjs-core with its gradients and chained ops (the npm main has neither) and the JavaScript CPU kernels into one ES module, so that the
// process holds a single registry. `ignoreAnnotations`: the packages' sideEffects lists would drop the registrations.
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { build } from 'esbuild';

const require = createRequire(import.meta.url);
export const coreDist = path.dirname(require.resolve('@tensorflow/tfjs-core'));
const cpuDist = path.dirname(require.resolve('@tensorflow/tfjs-backend-cpu'));

/** What `#tfjs` is made of. */
export const tfjsSource = `
      import '${coreDist}/register_all_gradients.js';
      import '${coreDist}/public/chained_ops/register_all_chained_ops.js';
      export * from '${coreDist}/index.js';
      export { MathBackendCPU } from '${cpuDist}/base.js';
      import '${cpuDist}/register_all_kernels.js';
    `;

/** Sends every import of tfjs-core, by whichever name, to the same files. */
export const oneCore = {
  name: 'one-core',
  setup(plugin) {
    plugin.onResolve({ filter: /^@tensorflow\/tfjs-core$/ }, () => ({ path: path.join(coreDist, 'index.js') }));
    plugin.onResolve({ filter: /^@tensorflow\/tfjs-core\/dist\// }, (args) => ({
      path: path.join(coreDist, args.path.slice('@tensorflow/tfjs-core/dist/'.length).replace(/(\.js)?$/, '.js')),
    }));
  },
};

/** Options of every bundle that holds tfjs. */
export const bundleOptions = {
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  ignoreAnnotations: true,
  logLevel: 'error',
  banner: {
    js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
  },
};

/** Leaves tfjs-core outside: packages above it find the one copy next to them. */
const coreOutside = {
  name: 'core-outside',
  setup(plugin) {
    plugin.onResolve({ filter: /^@tensorflow\/tfjs-core(\/|$)/ }, () => ({ path: './tfjs.mjs', external: true }));
  },
};

/** tfjs-layers is a development dependency: for the engine's example and its test. */
function findLayers() {
  try {
    return path.join(path.dirname(require.resolve('@tensorflow/tfjs-layers')), 'index.js');
  } catch {
    return undefined;
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  await build({
    ...bundleOptions,
    stdin: { contents: tfjsSource, resolveDir: process.cwd() },
    outfile: 'build/tfjs.mjs',
    plugins: [oneCore],
  });
  const layers = findLayers();
  if (layers)
    await build({ ...bundleOptions, entryPoints: [layers], outfile: 'build/tfjs-layers.mjs', plugins: [coreOutside] });
}
