import { execFile, spawn } from 'node:child_process';
import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { builtModule, packageRoot } from '../../common/built-module.ts';
import { systemClock } from '../../common/clock.ts';
import { fromFileError } from '../../common/file-errors.ts';
import { FileStore } from '../../common/objectstore/file-store.ts';
import { withKeyLock } from '../../common/objectstore/key-lock.ts';
import { openObjectStore } from '../../common/objectstore/open.ts';
import { RandomStream } from '../../common/random.ts';

const modules = { clock: systemClock, random: new RandomStream('file-store-test') };
let folder: string;
let url: string;

beforeEach(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'covey-file-'));
  url = pathToFileURL(folder).href;
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** Compiles the store alone to JavaScript, because child processes cannot run TypeScript. */
async function bundleStore(to: string): Promise<void> {
  const esbuild = await import('esbuild');
  const contents = `export { openObjectStore } from './common/objectstore/open.ts'; export { withKeyLock } from './common/objectstore/key-lock.ts';
    export { systemClock } from './common/clock.ts'; export { RandomStream } from './common/random.ts';`;
  await esbuild.build({
    stdin: { contents, resolveDir: packageRoot(), loader: 'ts' },
    bundle: true,
    platform: 'node',
    format: 'esm',
    packages: 'external',
    outfile: to,
  });
}

describe('the file store between processes', () => {
  // Inside the package, so that external packages resolve.
  const bundle = path.join(packageRoot(), 'build', `file-store-test-${process.pid}.mjs`);
  beforeAll(async () => {
    await bundleStore(bundle);
    return () => rm(bundle, { force: true });
  });

  const script = (
    body: string,
  ) => `import { openObjectStore, withKeyLock, systemClock, RandomStream } from ${JSON.stringify(pathToFileURL(bundle).href)};
    const store = openObjectStore(${JSON.stringify(url)}); ${body}`;
  const node = (body: string) => ['--input-type=module', '-e', script(body)];

  it('loses no increment of a counter that three processes raise by compare-and-swap', async () => {
    const store = openObjectStore(url);
    await store.put('counter', Buffer.from('0'));
    const raise = `for (let done = 0; done < 40; ) {
      const { bytes, etag } = await store.get('counter');
      try { await store.put('counter', Buffer.from(String(Number(Buffer.from(bytes)) + 1)), { ifMatch: etag }); done++; }
      catch (error) { if (error.code !== 'PRECONDITION_FAILED') throw error; }
    }`;
    await Promise.all([0, 1, 2].map(() => run(process.execPath, node(raise))));
    expect(Buffer.from((await store.get('counter')).bytes).toString()).toBe('120');
    const [lock] = (await readdir(folder)).filter((name) => name.startsWith('.covey-lock-'));
    // Old tickets are cleared away: 120 writes leave no more than are kept, and no temporary.
    const tickets = await readdir(path.join(folder, lock!));
    expect(tickets.length).toBeLessThanOrEqual(17);
    expect(tickets.filter((name) => name.startsWith('new-'))).toEqual([]);
  });

  it('lets exactly one of several processes create an object', async () => {
    const create = `await store.put('once', Buffer.from(String(process.pid)), { ifAbsent: true }).then(() => console.log('won'), (error) => console.log(error.code));`;
    const outputs = await Promise.all([0, 1, 2].map(() => run(process.execPath, node(create))));
    expect(outputs.map((output) => output.trim()).sort()).toEqual([
      'PRECONDITION_FAILED',
      'PRECONDITION_FAILED',
      'won',
    ]);
  });

  it('keeps the old object and leaves nothing behind when a write runs out of space', async () => {
    await openObjectStore(url).put('k', Buffer.from('old'));
    // A limit on file size stands for a disk that fills up in the middle of a write.
    const write = `await store.put('k', Buffer.alloc(300_000)).catch((error) => console.log(error.code));`;
    const output = await run('/bin/sh', ['-c', 'ulimit -f 64; exec "$0" "$@"', process.execPath, ...node(write)]);
    expect(output.trim()).toBe('RESOURCE_EXHAUSTED');
    expect(await readdir(folder)).toEqual(['k']);
    expect(Buffer.from((await openObjectStore(url).get('k')).bytes).toString()).toBe('old');
  });

  it('takes the lock of a process that was killed while it held it', async () => {
    const lock = path.join(folder, 'lock');
    const hold = `await withKeyLock({ folder: ${JSON.stringify(lock)}, timeoutMs: 1000 }, { clock: systemClock, random: new RandomStream(1) }, async () => { console.log('held'); await new Promise(() => setInterval(() => {}, 1000)); });`;
    const child = spawn(process.execPath, node(hold), { stdio: ['ignore', 'pipe', 'inherit'] });
    await new Promise((resolve) => child.stdout.once('data', resolve));
    const blocked = withKeyLock({ folder: lock, timeoutMs: 200 }, modules, async () => 'in');
    await expect(blocked).rejects.toMatchObject({
      code: 'UNAVAILABLE',
      message: expect.stringContaining(String(child.pid)),
    });
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await gone;
    expect(await withKeyLock({ folder: lock, timeoutMs: 2000 }, modules, async () => 'in')).toBe('in');
  });
});

describe('the lock of a key', () => {
  it('admits one at a time, also within a process', async () => {
    let inside = 0;
    let most = 0;
    const enter = () =>
      withKeyLock({ folder: path.join(folder, 'lock'), timeoutMs: 10_000 }, modules, async () => {
        most = Math.max(most, ++inside);
        await systemClock.sleep(1);
        inside--;
      });
    await Promise.all(Array.from({ length: 20 }, enter));
    expect(most).toBe(1);
  });

  it('is free again after its holder throws, and can be given up waiting for', async () => {
    const lock = { folder: path.join(folder, 'lock'), timeoutMs: 5000 };
    await expect(withKeyLock(lock, modules, async () => Promise.reject(new RangeError('inside')))).rejects.toThrow(
      'inside',
    );
    const controller = new AbortController();
    await withKeyLock(lock, modules, async () => {
      setTimeout(() => controller.abort(), 20);
      await expect(
        withKeyLock({ ...lock, signal: controller.signal }, modules, async () => 'in'),
      ).rejects.toMatchObject({ code: 'CANCELLED' });
    });
    expect(await withKeyLock(lock, modules, async () => 'in')).toBe('in');
  });

  it('does not take a process that got a reused pid for the holder', async () => {
    const lock = path.join(folder, 'lock');
    await mkdir(lock);
    await writeFile(path.join(lock, '7'), JSON.stringify({ pid: process.pid, host: os.hostname(), startTicks: 1 }));
    const taken = withKeyLock({ folder: lock, timeoutMs: 300 }, modules, async () => 'in');
    if (process.platform === 'linux') expect(await taken).toBe('in');
    else await expect(taken).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  });
});

describe('the file store and the file system', () => {
  it('leaves no temporary file behind when a write fails', async () => {
    const store = openObjectStore(url);
    await store.put('a', Buffer.from('x'));
    await expect(store.put('a/b', Buffer.from('x'))).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringContaining('where a folder is needed'),
    });
    await store.put('d/e', Buffer.from('x'));
    await expect(store.put('d', Buffer.from('x'))).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(store.put('a', Buffer.from('y'), { ifAbsent: true })).rejects.toMatchObject({
      code: 'PRECONDITION_FAILED',
    });
    expect((await readdir(folder)).sort()).toEqual(['a', 'd']);
  });

  it.skipIf(process.platform !== 'linux')('reports a full disk as RESOURCE_EXHAUSTED', async () => {
    // /dev/full answers every write as a full disk does.
    const error = await writeFile('/dev/full', 'x').catch((thrown: unknown) =>
      fromFileError(thrown, 'write', '/dev/full'),
    );
    expect(error).toMatchObject({ code: 'RESOURCE_EXHAUSTED', message: expect.stringContaining('ENOSPC') });
  });

  it('does not list its own locks and temporary files, and follows no key out of its folder', async () => {
    const store = openObjectStore(url);
    const { etag } = await store.put('k', Buffer.from('1'));
    await store.put('k', Buffer.from('2'), { ifMatch: etag });
    await writeFile(path.join(folder, '.covey-tmp-123-dead'), 'left by a crash');
    const keys: string[] = [];
    for await (const object of store.list('')) keys.push(object.key);
    expect(keys).toEqual(['k']);
    for (const key of ['../x', '..', 'a/../../x', '/etc/passwd'])
      await expect(store.get(key)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  it('reads through a symbolic link that its owner made', async () => {
    const outside = path.join(folder, 'outside');
    await mkdir(outside);
    await writeFile(path.join(outside, 'f'), 'linked');
    await mkdir(path.join(folder, 'store'));
    await symlink(outside, path.join(folder, 'store', 'data'));
    const store = new FileStore({ url: `${url}/store` }, modules);
    expect(Buffer.from((await store.get('data/f')).bytes).toString()).toBe('linked');
  });

  it('gives large objects an etag that changes with each write', async () => {
    const store = openObjectStore(url);
    const body = Buffer.alloc(300_000);
    const first = await store.put('big', body);
    expect((await store.head('big'))!.etag).toBe(first.etag);
    body[7] = 1;
    const second = await store.put('big', body, { ifMatch: first.etag });
    expect(second.etag).not.toBe(first.etag);
    await expect(store.put('big', body, { ifMatch: first.etag })).rejects.toMatchObject({
      code: 'PRECONDITION_FAILED',
    });
  });
});

function hasBuild(): boolean {
  try {
    return builtModule('common/testing/s3-server-main') !== undefined;
  } catch {
    return false;
  }
}

describe.skipIf(!hasBuild())('the test S3 server as a process (needs `npm run build`)', () => {
  it('prints where it listens, serves, takes faults over HTTP, and ends on SIGTERM', async () => {
    const child = spawn(
      process.execPath,
      [builtModule('common/testing/s3-server-main').pathname, '--bucket', 'covey'],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    const line = await new Promise<string>((resolve) =>
      child.stdout.once('data', (data: Buffer) => resolve(data.toString())),
    );
    const { url: endpoint, env } = JSON.parse(line) as { url: string; env: Record<string, string> };
    const store = openObjectStore('s3://covey/x', {
      env,
      limits: { retry: { attemptsMax: 2, delayBaseMs: 1, delayMaxMs: 1 } },
    });
    await store.put('k', Buffer.from('v'));
    await fetch(`${endpoint}/-/faults`, { method: 'PUT', body: JSON.stringify({ unavailable: 1 }) });
    await expect(store.get('k')).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await fetch(`${endpoint}/-/faults`, { method: 'PUT', body: '{}' });
    expect(Buffer.from((await store.get('k')).bytes).toString()).toBe('v');
    await store.close();
    const exit = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    expect(await exit).toBe(0);
  });
});

function run(command: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(command, [...args], { timeout: 30_000 }, (error, stdout, stderr) =>
      error ? reject(new Error(`${error.message}\n${stderr}`)) : resolve(stdout),
    );
  });
}
