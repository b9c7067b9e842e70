import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { build } from 'esbuild';
import { expect, it } from 'vitest';
import { packageRoot } from '../../common/built-module.ts';

it('aborts at the first signal and exits with 130 at the second', async () => {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'covey-signals-'));
  const file = path.join(folder, 'main.mjs');
  // Never ends by itself: only the second signal can end it.
  const contents = `import { listenForShutdown } from './common/signals.ts';
    const { signal } = listenForShutdown((name) => console.log('first ' + name));
    signal.addEventListener('abort', () => console.log(signal.reason.code + ' ' + signal.reason.fields.signal));
    setInterval(() => {}, 1000);
    console.log('ready');`;
  await build({
    stdin: { contents, resolveDir: packageRoot(), loader: 'ts' },
    bundle: true,
    platform: 'node',
    format: 'esm',
    outfile: file,
  });
  const child = spawn(process.execPath, [file], { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  const until = (text: string) =>
    new Promise<void>((resolve) => {
      const check = () => output.includes(text) && resolve();
      child.stdout.on('data', check);
      check();
    });
  child.stdout.on('data', (data: Buffer) => {
    output += data.toString();
  });
  const exit = new Promise((resolve) => child.once('exit', resolve));
  await until('ready');
  child.kill('SIGTERM');
  await until('CANCELLED SIGTERM');
  expect(output).toContain('first SIGTERM');
  child.kill('SIGINT');
  expect(await exit).toBe(130);
  await rm(folder, { recursive: true, force: true });
});
