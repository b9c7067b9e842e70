// `npm run conformance`: tfjs-core's own published specs against the torch backend, with tfjs's leak checks on.
//   --json          one JSON object on stdout: {specs, passed, failed, excluded, pending, failures}
//   --filter TEXT   only specs whose full name holds TEXT (the exclusion list is then only checked for those that ran)
// COVEY_DEVICE=cuda runs them on a GPU; COVEY_ADDON names another build of the addon.
// Exit 1 on a failure that tests/conformance/exclusions.json does not expect, and on an expected one that does not happen.
import { existsSync, readFileSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { build } from 'esbuild';
import { addonPath } from './addon-path.mjs';
import { bundleOptions, oneCore, tfjsSource } from './build-tfjs.mjs';
import { judge, reportLines } from './conformance-report.mjs';
import { ROOT } from './setup-steps.mjs';

const BUNDLE = path.join(ROOT, 'build/conformance.mjs');

const { values: options } = parseArgs({ options: { json: { type: 'boolean' }, filter: { type: 'string' } } });

/** The engine's `#tfjs` becomes the sources themselves, so that specs and backend share one copy. */
const tfjsFromSource = {
  name: 'tfjs-from-source',
  setup(plugin) {
    plugin.onResolve({ filter: /^#tfjs$/ }, () => ({ path: 'tfjs', namespace: 'tfjs' }));
    plugin.onLoad({ filter: /.*/, namespace: 'tfjs' }, () => ({ contents: tfjsSource, resolveDir: ROOT }));
  },
};

async function bundleSpecs() {
  await build({
    ...bundleOptions,
    entryPoints: [path.join(ROOT, 'tests/conformance/specs.ts')],
    outfile: BUNDLE,
    external: ['jasmine-core*'],
    plugins: [oneCore, tfjsFromSource],
  });
}

/** Declares the specs and runs them in order. Resolves to one {name, status, messages} a spec. */
async function runSpecs(filter) {
  const jasmineRequire = createRequire(import.meta.url)('jasmine-core');
  const jasmine = jasmineRequire.boot(jasmineRequire);
  const environment = jasmine.getEnv();
  environment.configure({
    random: false,
    ...(filter && { specFilter: (spec) => spec.getFullName().includes(filter) }),
  });
  const specs = [];
  const outside = [];
  environment.addReporter({
    specDone({ fullName, status, failedExpectations }) {
      if (process.env.COVEY_CONFORMANCE_TRACE) writeSync(2, `${status} ${fullName}\n`);
      if (status !== 'excluded') specs.push({ name: fullName, status, messages: failedExpectations.map(messageOf) });
    },
    suiteDone: ({ fullName, failedExpectations }) => outside.push(...suiteFailures(fullName, failedExpectations)),
    jasmineDone: ({ failedExpectations }) => outside.push(...suiteFailures('(outside of specs)', failedExpectations)),
  });
  await import(pathToFileURL(BUNDLE).href);
  await environment.execute();
  return [...specs, ...outside];
}

function messageOf({ message }) {
  return String(message).split('\n')[0].slice(0, 300);
}

/** A failing afterAll belongs to no spec: it counts as one more. */
function suiteFailures(name, failedExpectations) {
  return failedExpectations.length === 0
    ? []
    : [{ name: `${name} afterAll`, status: 'failed', messages: failedExpectations.map(messageOf) }];
}

if (!existsSync(addonPath())) {
  const reason = 'the native engine is not built';
  process.stdout.write(options.json ? `${JSON.stringify({ specs: 0, skipped: reason })}\n` : `skipped: ${reason}\n`);
  process.exit(0);
}
await bundleSpecs();
const startedAt = performance.now();
// The specs provoke warnings by the hundred, and tfjs prints them; stdout is for the report.
const { log, warn, error } = console;
Object.assign(console, { log() {}, warn() {}, error() {} });
const specs = await runSpecs(options.filter);
Object.assign(console, { log, warn, error });
const exclusions = JSON.parse(readFileSync(path.join(ROOT, 'tests/conformance/exclusions.json'), 'utf8'));
const report = judge(specs, exclusions, { partial: options.filter !== undefined });
const seconds = (performance.now() - startedAt) / 1000;
process.stdout.write(options.json ? `${JSON.stringify(report)}\n` : `${reportLines(report, seconds).join('\n')}\n`);
process.exit(report.failed === 0 ? 0 : 1);
