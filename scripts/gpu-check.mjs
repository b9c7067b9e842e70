// `npm run gpu:check [-- --json --quick]`: everything that needs a GPU, in one go: tfjs's conformance specs, gradient checks and parity of every
// differentiable op, and the step benchmark against PyTorch on the same card. Writes bench/results/DATE-CARD-gpu.json.
// Where there is no GPU it says so, runs the same on the CPU and writes nothing. Exit 1 where a check fails, whatever it ran on.
// Build first against a CUDA torch: COVEY_LIBTORCH=pip[:python] (docs/gpu.md); the variable may stay set.
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { setupOrExit } from './setup.mjs';
import { ROOT } from './setup-steps.mjs';

const flag = { type: 'boolean', default: false };
const { values: options } = parseArgs({ options: { json: flag, quick: flag } });
const say = (line) => process.stderr.write(`covey gpu:check: ${line}\n`);

/** Runs node; stdout is the answer, stderr passes through. */
function node(args, env) {
  const child = spawnSync(process.execPath, args, {
    cwd: ROOT,
    env: { ...process.env, ...env },
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    maxBuffer: 2 ** 28,
  });
  return { status: child.status, output: child.stdout };
}

function lastJson(output) {
  const line = output.trim().split('\n').at(-1) ?? '';
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

function conformance(env) {
  const { status, output } = node(
    ['scripts/conformance.mjs', '--json', ...(options.quick ? ['--filter', 'conv2d'] : [])],
    env,
  );
  const { specs, passed, failed, excluded, skipped } = lastJson(output) ?? {};
  return { ok: status === 0, specs, passed, failed, excluded, skipped };
}

/** Central differences in fp64, parity with plain tfjs ≤ 2e-6 and bf16 rounding, for every op: tests/engine/device-ops.test.ts. */
function gradientChecks(env) {
  const vitest = [
    'node_modules/vitest/vitest.mjs',
    'run',
    '--project',
    'unit',
    'tests/engine/device-ops.test.ts',
    '--reporter=json',
  ];
  const { status, output } = node(vitest, env);
  const report = lastJson(output) ?? {};
  const failures = (report.testResults ?? []).flatMap(({ assertionResults }) =>
    assertionResults.filter((test) => test.status === 'failed').map(({ fullName }) => fullName),
  );
  return { ok: status === 0, tests: report.numTotalTests, passed: report.numPassedTests, failures };
}

function benchmark(env) {
  const { status, output } = node(
    ['scripts/run-bench.mjs', 'gpu-step', '--json', ...(options.quick ? ['--quick'] : [])],
    env,
  );
  return { ok: status === 0, rows: lastJson(output) ?? [] };
}

function cardName() {
  const asked = spawnSync('nvidia-smi', ['--query-gpu=name', '--format=csv,noheader'], { encoding: 'utf8' });
  return asked.status === 0 ? asked.stdout.split('\n')[0].trim() : 'unknown card';
}

await setupOrExit();
const { findDevices } = await import('../dist/engine/devices.js');
const { devices, library } = findDevices();
const hasGpu = devices.length > 1;
const env = { COVEY_DEVICE: hasGpu ? 'cuda' : 'cpu' };
const pip = /^pip:(.+)/.exec(process.env.COVEY_LIBTORCH ?? '')?.[1];
if (pip && !process.env.COVEY_BENCH_TORCH_NEW) env.COVEY_BENCH_TORCH_NEW = pip;
if (hasGpu) say(`${cardName()}, ${devices.slice(1).join(', ')}, ${library}`);
else say(`SKIPPED on a GPU: none is visible to this addon (${library}); the same checks follow on the CPU`);

const result = {
  date: new Date().toISOString().slice(0, 10),
  gpu: hasGpu ? cardName() : null,
  skipped: hasGpu ? undefined : 'no GPU: ran on the CPU',
  devices,
  library,
  quick: options.quick,
  conformance: conformance(env),
  gradients: gradientChecks(env),
  benchmark: benchmark(env),
};
const ok = result.conformance.ok && result.gradients.ok && result.benchmark.ok;
if (hasGpu) {
  const card = result.gpu.toLowerCase().replace(/[^a-z0-9]+/g, '-');
  const file = path.join(ROOT, 'bench/results', `${result.date}-${card}-gpu.json`);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, `${JSON.stringify(result, null, 2)}\n`);
  say(`written: ${path.relative(ROOT, file)}`);
}
if (options.json) process.stdout.write(`${JSON.stringify({ ok, ...result })}\n`);
else {
  const { conformance: specs, gradients, benchmark: bench } = result;
  say(
    `conformance ${specs.ok ? 'ok' : 'FAILED'}: ${specs.skipped ?? `${specs.passed} of ${specs.specs} specs pass, ${specs.excluded} excluded`}`,
  );
  say(`gradients and parity ${gradients.ok ? 'ok' : 'FAILED'}: ${gradients.passed} of ${gradients.tests}`);
  for (const name of gradients.failures) say(`  ${name}`);
  for (const row of bench.rows) {
    say(
      `${row.case} on ${row.device}: ${row.ours ?? '–'}, PyTorch ${row.peer ?? '–'} ${row.unit}${row.ratio ? `, ratio ${row.ratio.toFixed(3)}` : ''}${row.note ? ` (${row.note})` : ''}`,
    );
  }
}
process.exit(ok ? 0 : 1);
