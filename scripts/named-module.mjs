// What `npm run bench` and `npm run study` share: find the module that was named, set the checkout up, run it, print rows or a table.
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { setupOrExit } from './setup.mjs';
import { ROOT } from './setup-steps.mjs';

/** Four significant digits; what was not measured is a dash, never a made-up number. */
export const shown = (value) =>
  typeof value === 'number' && Number.isFinite(value) ? String(Number(value.toPrecision(4))) : '–';

async function printTable({ head, rows, notes }) {
  const { default: Table } = await import('cli-table3');
  const noRules = { mid: '', 'left-mid': '', 'mid-mid': '', 'right-mid': '' };
  const table = new Table({ head: [...head], style: { head: [], border: [] }, chars: noRules });
  for (const row of rows) table.push([...row]);
  process.stdout.write(`${table.toString()}\n${notes.join('\n')}\n`);
}

/** One positional name, --json, --quick, and text options that are handed on as they are. */
function readArguments(command, textOptions, fail) {
  try {
    const flag = { type: 'boolean' };
    const texts = Object.fromEntries(textOptions.map((name) => [name, { type: 'string' }]));
    return parseArgs({
      allowPositionals: true,
      options: { json: flag, quick: flag, help: { ...flag, short: 'h' }, ...texts },
    });
  } catch (error) {
    return fail(
      `${error.message}; use: npm run ${command} -- NAME [--json] [--quick] (more options: bench/README.md)`,
      2,
    );
  }
}

function namesIn(folder) {
  if (!existsSync(path.join(ROOT, folder))) return [];
  return readdirSync(path.join(ROOT, folder))
    .filter((file) => file.endsWith('.ts'))
    .map((file) => file.slice(0, -3));
}

function usage(command, names, textOptions) {
  const options = ['[--json]', '[--quick]', ...textOptions.map((name) => `[--${name} VALUE]`)].join(' ');
  return `npm run ${command} -- NAME ${options}\nNAME: ${names.join(', ')}\nWhich options a name takes: bench/README.md\n`;
}

/** Runs the module of `folder` that the command line names: `run(options) → rows`, and `table(rows)` for people. */
export async function runNamedModule({ command, folder, textOptions, plainTable }) {
  const fail = (message, code) => {
    process.stderr.write(`covey ${command}: ${message}\n`);
    process.exit(code);
  };
  const { values, positionals } = readArguments(command, textOptions, fail);
  const names = namesIn(folder);
  if (values.help) {
    process.stdout.write(usage(command, names, textOptions));
    return;
  }
  const [name] = positionals;
  if (positionals.length !== 1 || !names.includes(name)) fail(`name one of: ${names.join(', ') || '(none yet)'}`, 2);

  await setupOrExit();
  const { processEnvironment } = await import('../dist/cli/process-environment.js');
  if (process.env.COVEY_ENVIRONMENT_SET !== '1') {
    // Some of the settings are read when a process starts: start once more with them.
    const { spawnSync } = await import('node:child_process');
    const env = { ...processEnvironment(process.env), COVEY_ENVIRONMENT_SET: '1' };
    const again = spawnSync(process.execPath, process.argv.slice(1), { stdio: 'inherit', env });
    process.exit(again.status ?? 1);
  }
  const { run, table = plainTable } = await import(pathToFileURL(path.join(ROOT, 'dist', folder, `${name}.js`)).href);
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
}
