// `npm run demo` and `npm run covey -- …`: set up, then the compiled command line, with the environment that must be there
// before the process starts.
import { spawn } from 'node:child_process';
import path from 'node:path';
import { setupOrExit } from './setup.mjs';
import { ROOT } from './setup-steps.mjs';

await setupOrExit();
const { processEnvironment } = await import('../dist/cli/process-environment.js');
const child = spawn(process.execPath, [path.join(ROOT, 'dist/cli/main.js'), ...process.argv.slice(2)], {
  stdio: 'inherit',
  env: processEnvironment(process.env),
});
// A terminal's Ctrl-C reaches the child by itself (same process group); sent to this process alone it must be passed on.
process.on('SIGINT', () => {});
for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
child.on('exit', (code, signal) => {
  process.exitCode = code ?? 128 + ({ SIGINT: 2, SIGKILL: 9, SIGTERM: 15, SIGSEGV: 11, SIGABRT: 6 }[signal] ?? 1);
});
child.on('error', (error) => {
  process.stderr.write(`covey: cannot start node: ${error.message}\n`);
  process.exitCode = 1;
});
