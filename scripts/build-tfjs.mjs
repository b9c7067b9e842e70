// Bundles tfjs-core with its gradients (the npm main has none) and the JavaScript CPU kernels into one ES module, so that the
// process holds a single registry. `ignoreAnnotations`: the packages' sideEffects lists would drop the registrations.
import { createRequire } from 'node:module';
import path from 'node:path';
import { build } from 'esbuild';

const require = createRequire(import.meta.url);
const coreDist = path.dirname(require.resolve('@tensorflow/tfjs-core'));
const cpuDist = path.dirname(require.resolve('@tensorflow/tfjs-backend-cpu'));

await build({
  stdin: {
    contents: `
      import '${coreDist}/register_all_gradients.js';
      export * from '${coreDist}/index.js';
      export { MathBackendCPU } from '${cpuDist}/base.js';
      import '${cpuDist}/register_all_kernels.js';
    `,
    resolveDir: process.cwd(),
  },
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  outfile: 'build/tfjs.mjs',
  ignoreAnnotations: true,
  logLevel: 'error',
  banner: {
    js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
  },
  plugins: [
    {
      name: 'one-core',
      setup(plugin) {
        plugin.onResolve({ filter: /^@tensorflow\/tfjs-core$/ }, () => ({ path: path.join(coreDist, 'index.js') }));
        plugin.onResolve({ filter: /^@tensorflow\/tfjs-core\/dist\// }, (args) => ({
          path: path.join(coreDist, args.path.slice('@tensorflow/tfjs-core/dist/'.length).replace(/(\.js)?$/, '.js')),
        }));
      },
    },
  ],
});
