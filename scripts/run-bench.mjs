// `npm run bench -- NAME [--json] [--quick]`: the one way in to every benchmark. A benchmark is bench/NAME.ts with
// `run({ quick, json }) → rows {case, ours, peer, ratio, unit}`; ratio > 1 means that covey is better. One whose rows hold more
// exports `table(rows)`; options beyond --json and --quick are handed on as they are.
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { setupOrExit } from './setup.mjs';
import { ROOT } from './setup-steps.mjs';

function fail(message, code) {
  process.stderr.write(`covey bench: ${message}\n`);
  process.exit(code);
}

function readArguments() {
  try {
    const flag = { type: 'boolean' };
    const text = { type: 'string' };
    const options = { json: flag, quick: flag, only: text, threads: text, precision: text, peers: text };
    return parseArgs({ allowPositionals: true, options });
  } catch (error) {
    return fail(`${error.message}; use: npm run bench -- NAME [--json] [--quick] (more options: bench/README.md)`, 2);
  }
}

/** Four significant digits; a missing peer is a dash, never a made-up number. */
const shown = (value) =>
  typeof value === 'number' && Number.isFinite(value) ? String(Number(value.toPrecision(4))) : '–';

const plainTable = (rows) => ({
  head: ['case', 'ours', 'peer', 'ratio', 'unit'],
  rows: rows.map((row) => [row.case, shown(row.ours), shown(row.peer), shown(row.ratio), row.unit]),
  notes: ['ratio > 1: covey is better'],
});

async function printTable({ head, rows, notes }) {
  const { default: Table } = await import('cli-table3');
  const noRules = { mid: '', 'left-mid': '', 'mid-mid': '', 'right-mid': '' };
  const table = new Table({ head: [...head], style: { head: [], border: [] }, chars: noRules });
  for (const row of rows) table.push([...row]);
  process.stdout.write(`${table.toString()}\n${notes.join('\n')}\n`);
}

const { values, positionals } = readArguments();
const names = existsSync(path.join(ROOT, 'bench'))
  ? readdirSync(path.join(ROOT, 'bench'))
      .filter((file) => file.endsWith('.ts'))
      .map((file) => file.slice(0, -3))
  : [];
const [name] = positionals;
if (positionals.length !== 1 || !names.includes(name))
  fail(`name one benchmark of: ${names.join(', ') || '(none yet)'}`, 2);

await setupOrExit();
const { processEnvironment } = await import('../dist/cli/process-environment.js');
if (process.env.COVEY_ENVIRONMENT_SET !== '1') {
  // Some of the settings are read when a process starts: start once more with them.
  const { spawnSync } = await import('node:child_process');
  const env = { ...processEnvironment(process.env), COVEY_ENVIRONMENT_SET: '1' };
  const again = spawnSync(process.execPath, process.argv.slice(1), { stdio: 'inherit', env });
  process.exit(again.status ?? 1);
}
const { run, table = plainTable } = await import(pathToFileURL(path.join(ROOT, 'dist/bench', `${name}.js`)).href);
let rows;
try {
  rows = await run({ ...values, quick: values.quick ?? false, json: values.json ?? false });
} catch (error) {
  // Only what the person typed is theirs to mend without a stack.
  if (error?.code !== 'INVALID_ARGUMENT') throw error;
  fail(error.message, 2);
}
if (values.json) process.stdout.write(`${JSON.stringify(rows)}\n`);
else await printTable(table(rows));
