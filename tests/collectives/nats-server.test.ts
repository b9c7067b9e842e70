import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { packageRoot } from '../../common/built-module.ts';
import { CoveyError } from '../../common/errors.ts';
import { silentLogger } from '../../common/log.ts';
import { findNatsServer, startNatsServer } from '../../common/nats-server.ts';

const reason = findNatsServer() ? '' : ' (skipped: nats-server is not installed)';
const builtFile = path.join(packageRoot(), 'dist/common/nats-server.js');

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

describe('starting nats-server', () => {
  it('names the package to install where there is none', async () => {
    const thrown: unknown = await startNatsServer({ command: '/nowhere/nats-server' }, { logger: silentLogger }).catch(
      (error: unknown) => error,
    );
    expect(CoveyError.is(thrown, 'NOT_FOUND') && thrown.message).toMatch(
      /\/nowhere\/nats-server.*apt-get install nats-server/,
    );
  });

  it.skipIf(reason !== '')(`answers when the promise resolves and is gone after stop${reason}`, async () => {
    const server = await startNatsServer({}, { logger: silentLogger });
    expect(alive(server.pid)).toBe(true);
    const greeting = await new Promise<string>((resolve) => {
      const socket = net.connect(server.port, '127.0.0.1');
      socket.once('data', (data) => {
        resolve(data.toString());
        socket.destroy();
      });
    });
    expect(JSON.parse(greeting.slice(5)).max_payload).toBeGreaterThan(2 ** 20);
    await server.stop();
    await server.stop();
    expect(alive(server.pid)).toBe(false);
  });

  it.skipIf(reason !== '')(`says that a port is taken${reason}`, async () => {
    const server = await startNatsServer({}, { logger: silentLogger });
    const thrown: unknown = await startNatsServer({ port: server.port }, { logger: silentLogger }).catch(
      (error: unknown) => error,
    );
    await server.stop();
    expect(CoveyError.is(thrown, 'UNAVAILABLE') && thrown.message).toContain('address already in use');
  });

  it.skipIf(reason !== '' || !existsSync(builtFile))(
    `dies with a parent that is killed${reason}`,
    { timeout: 20_000 },
    async () => {
      const script = `import { startNatsServer } from ${JSON.stringify(builtFile)}; import { silentLogger } from ${JSON.stringify(builtFile.replace('nats-server', 'log'))};
      const server = await startNatsServer({}, { logger: silentLogger }); console.log(server.pid); setInterval(() => {}, 1000);`;
      const parent = spawn(process.execPath, ['--input-type=module', '-e', script], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const pid = await new Promise<number>((resolve) =>
        parent.stdout.once('data', (data: Buffer) => resolve(Number(data.toString()))),
      );
      expect(alive(pid)).toBe(true);
      parent.kill('SIGKILL');
      await expect.poll(() => alive(pid), { timeout: 5000 }).toBe(false);
    },
  );
});
