// `npm test`: set up, then format and lint, import direction, proto drift, types, tfjs-core's specs and all tests; the last line counts them.
// `npm test -- tests/area` sets up and runs only those tests.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { setupOrExit } from './setup.mjs';
import { ROOT } from './setup-steps.mjs';
import { countConformance, countResults, summaryLine } from './test-counts.mjs';

await setupOrExit();
const filters = process.argv.slice(2);
const totals = { passed: 0, failed: 0, skipped: 0 };

function runNode(script, args) {
  return (
    spawnSync(process.execPath, [script, ...args], { cwd: ROOT, stdio: ['ignore', 'inherit', 'inherit'] }).status === 0
  );
}

function houseCheck(name, script, args = []) {
  const ok = existsSync(path.join(ROOT, script)) && runNode(script, args);
  process.stdout.write(`${ok ? 'ok    ' : 'FAILED'} ${name}\n`);
  totals[ok ? 'passed' : 'failed']++;
}

if (filters.length === 0) {
  houseCheck('format and lint', 'node_modules/@biomejs/biome/bin/biome', ['check', '.']);
  houseCheck('import direction', 'scripts/check-imports.mjs');
  houseCheck('generated proto types are current', 'scripts/gen-proto.mjs', ['--check']);
  houseCheck('types', 'node_modules/typescript/bin/tsc', ['--noEmit', '-p', 'tsconfig.json']);
}

/** tfjs-core's own specs count as tests: pending ones as skipped, and so do those expected to fail. */
function conformanceSpecs() {
  const run = spawnSync(process.execPath, ['scripts/conformance.mjs', '--json'], {
    cwd: ROOT,
    stdio: ['ignore', 'pipe', 'inherit'],
    encoding: 'utf8',
    maxBuffer: 2 ** 26,
    timeout: 5 * 60_000,
  });
  const { counts, lines } = countConformance(run.stdout, run.status);
  process.stdout.write(lines.map((line) => `${line}\n`).join(''));
  for (const key of Object.keys(totals)) totals[key] += counts[key];
}

if (filters.length === 0) conformanceSpecs();

const report = path.join(ROOT, 'build/vitest.json');
rmSync(report, { force: true });
const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
const vitestOk = runNode('node_modules/vitest/vitest.mjs', ['run', ...reporters, ...filters]);
const counts = countResults(existsSync(report) ? JSON.parse(readFileSync(report, 'utf8')) : undefined, vitestOk);
for (const key of Object.keys(totals)) totals[key] += counts[key];

process.stdout.write(`${summaryLine(totals)}\n`);
process.exitCode = totals.failed === 0 ? 0 : 1;
