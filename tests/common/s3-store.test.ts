import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { Client } from 'minio';
import { Registry } from 'prom-client';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createStoreMetrics } from '../../common/metrics/store-metrics.ts';
import type { ObjectStore } from '../../common/objectstore/object-store.ts';
import { openObjectStore } from '../../common/objectstore/open.ts';
import { probeConditionalWrites } from '../../common/objectstore/probe.ts';
import type { S3Limits } from '../../common/objectstore/s3-transport.ts';
import { partSizeBytes } from '../../common/objectstore/s3-upload.ts';
import { NO_FAULTS, type S3FaultRates } from '../../common/testing/s3-faults.ts';
import { type S3TestServer, startS3Server } from '../../common/testing/s3-server.ts';

const MIB = 2 ** 20;
const limits: Partial<S3Limits> = {
  retry: { attemptsMax: 12, delayBaseMs: 2, delayMaxMs: 20 },
  partBytes: 5 * MIB,
  singlePutBytesMax: 6 * MIB,
};

let server: S3TestServer;
let store: ObjectStore;
let registry: Registry;
let folder: string;

beforeEach(async () => {
  server = await startS3Server({ buckets: ['covey'], seed: 7 });
  registry = new Registry();
  store = openObjectStore('s3://covey/p', { env: server.env, limits, metrics: createStoreMetrics(registry) });
  folder = await mkdtemp(path.join(os.tmpdir(), 'covey-s3-'));
});
afterEach(async () => {
  await store.close();
  await server.stop();
  await rm(folder, { recursive: true, force: true });
});

const faults = (rates: Partial<S3FaultRates>) => {
  server.faults = { ...NO_FAULTS, ...rates };
};
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
const code = (wanted: string) => expect.objectContaining({ name: 'CoveyError', code: wanted });
const bytesRead = async () =>
  (await registry.getSingleMetric('covey_s3_bytes_total')!.get()).values.find((v) => v.labels['direction'] === 'in')
    ?.value ?? 0;

describe('the S3 store under faults', () => {
  it.each([
    ['503 for a third of the requests', { unavailable: 0.33 }],
    ['answers that are lost after the work was done', { lostAnswer: 0.3 }],
  ])('does everything right with %s', async (_, rates) => {
    faults(rates);
    const body = randomBytes(1000);
    for (let i = 0; i < 20; i++) await store.put(`k/${i}`, body);
    for (let i = 0; i < 20; i++) expect(sha256((await store.get(`k/${i}`)).bytes)).toBe(sha256(body));
    const keys: string[] = [];
    for await (const object of store.list('k/')) keys.push(object.key);
    expect(keys).toHaveLength(20);
    for (const key of keys) await store.delete(key);
    expect(await store.head('k/3')).toBeNull();
    expect([...server.faultCounts.values()].reduce((sum, count) => sum + count)).toBeGreaterThan(10);
  });

  it.each(['reset', 'truncated'] as const)('resumes a body that is %s instead of reading it again', async (kind) => {
    const body = randomBytes(4 * MIB);
    await store.put('big', body);
    faults({ [kind]: 0.7 });
    for (let i = 0; i < 5; i++) expect(sha256((await store.get('big')).bytes)).toBe(sha256(body));
    expect(server.faultCounts.get(kind)).toBeGreaterThan(3);
    // Each byte arrived about once: starting over would have cost half a body per fault.
    expect(await bytesRead()).toBeLessThan(5 * body.length * 1.2);
  });

  it('goes on past attemptsMax while every attempt brings bytes', async () => {
    const body = randomBytes(2000);
    await store.put('slow', body);
    faults({ truncated: 1, faultAfterBytes: 100, methods: ['GET'] });
    expect(sha256((await store.get('slow')).bytes)).toBe(sha256(body));
    expect(server.faultCounts.get('truncated')).toBeGreaterThan(12);
  });

  it('resumes ranged reads and parallel downloads', async () => {
    const body = randomBytes(17 * MIB + 5);
    await writeFile(path.join(folder, 'up'), body);
    await store.putFile('shard', path.join(folder, 'up'));
    faults({ reset: 0.4, unavailable: 0.1 });
    expect(await store.getFile('shard', path.join(folder, 'down'))).toBe(body.length);
    expect(sha256(await readFile(path.join(folder, 'down')))).toBe(sha256(body));
    const { bytes } = await store.get('shard', { range: { offset: 6 * MIB - 3, length: 3 * MIB } });
    expect(sha256(bytes)).toBe(sha256(body.subarray(6 * MIB - 3, 9 * MIB - 3)));
  });

  it('gives up on a body that stalls and reads the rest on a new connection', async () => {
    const stalling = openObjectStore('s3://covey/p', { env: server.env, limits: { ...limits, attemptTimeoutMs: 200 } });
    const body = randomBytes(100_000);
    await stalling.put('stall', body);
    faults({ stalled: 0.5 });
    const startedAtMs = Date.now();
    for (let i = 0; i < 6; i++) expect(sha256((await stalling.get('stall')).bytes)).toBe(sha256(body));
    expect(server.faultCounts.get('stalled')).toBeGreaterThan(1);
    expect(Date.now() - startedAtMs).toBeLessThan(10_000);
    await stalling.close();
  });

  it('finds every flipped bit of a whole object by its etag and reads it again', async () => {
    const body = randomBytes(5000);
    await store.put('flip', body);
    faults({ flipped: 0.5 });
    for (let i = 0; i < 40; i++) expect(sha256((await store.get('flip')).bytes)).toBe(sha256(body));
    expect(server.faultCounts.get('flipped')).toBeGreaterThan(10);
  });

  it('gives up, and says how often it tried, when no byte of a body ever arrives', async () => {
    await store.put('cut', randomBytes(100));
    faults({ truncated: 1, faultAfterBytes: 0 });
    // Zero bytes arrive each time, so nothing is ever kept.
    await expect(store.get('cut')).rejects.toMatchObject({
      code: 'UNAVAILABLE',
      fields: { attempts: 12 },
    });
  });

  it('recognises its own first success behind a lost answer, and only its own', async () => {
    for (let i = 0; i < 20; i++) {
      faults({ lostAnswer: 0.5, methods: ['PUT'] });
      const { etag } = await store.put(`head/${i}`, Buffer.from(`created ${i}`), { ifAbsent: true });
      const next = await store.put(`head/${i}`, Buffer.from(`moved ${i}`), { ifMatch: etag });
      expect((await store.get(`head/${i}`)).etag).toBe(next.etag);
      await expect(store.put(`head/${i}`, Buffer.from('other'), { ifAbsent: true })).rejects.toEqual(
        code('PRECONDITION_FAILED'),
      );
      await expect(store.put(`head/${i}`, Buffer.from('other'), { ifMatch: etag })).rejects.toEqual(
        code('PRECONDITION_FAILED'),
      );
    }
    expect(server.faultCounts.get('lostAnswer')).toBeGreaterThan(10);
  });

  it('lets exactly one racing writer win although answers are lost', async () => {
    for (let round = 0; round < 10; round++) {
      faults({ lostAnswer: 0.3, unavailable: 0.2, methods: ['PUT'] });
      const writes = Array.from({ length: 4 }, (_, writer) =>
        store.put(`race/${round}`, Buffer.from(`writer ${writer}`), { ifAbsent: true }),
      );
      const outcomes = await Promise.allSettled(writes);
      const winners = outcomes.flatMap((outcome, writer) => (outcome.status === 'fulfilled' ? [writer] : []));
      expect(winners).toHaveLength(1);
      expect(Buffer.from((await store.get(`race/${round}`)).bytes).toString()).toBe(`writer ${winners[0]}`);
    }
  });

  it('completes a multipart upload whose completion was done but not answered', async () => {
    const body = randomBytes(11 * MIB);
    await writeFile(path.join(folder, 'up'), body);
    for (let i = 0; i < 4; i++) {
      faults({ lostAnswer: 0.4, unavailable: 0.1, methods: ['POST', 'PUT'] });
      await store.putFile(`multi/${i}`, path.join(folder, 'up'));
      faults({});
      expect(sha256((await store.get(`multi/${i}`)).bytes)).toBe(sha256(body));
    }
  });

  it('aborts a multipart upload that fails, and leaves no parts', async () => {
    await writeFile(path.join(folder, 'up'), randomBytes(11 * MIB));
    faults({ unavailable: 1, methods: ['PUT'] });
    await expect(store.putFile('never', path.join(folder, 'up'))).rejects.toEqual(code('UNAVAILABLE'));
    expect(server.buckets.get('covey')!.uploads.size).toBe(0);
    expect(await store.head('never')).toBeNull();
  });

  it('is back at full speed as soon as the faults end', async () => {
    const body = randomBytes(MIB);
    await store.put('speed', body);
    const timed = async () => {
      const startedAtMs = performance.now();
      for (let i = 0; i < 20; i++) await store.get('speed');
      return performance.now() - startedAtMs;
    };
    await timed();
    const beforeMs = Math.min(await timed(), await timed());
    faults({ unavailable: 0.1, reset: 0.2, truncated: 0.1 });
    await timed();
    faults({});
    const afterMs = Math.min(await timed(), await timed());
    expect(afterMs).toBeLessThan(beforeMs * 2 + 50);
  });
});

describe('the S3 store and its limits', () => {
  it('counts attempts, repetitions and bytes', async () => {
    faults({ unavailable: 1, methods: ['GET'] });
    await expect(store.get('x')).rejects.toEqual(code('UNAVAILABLE'));
    const text = await registry.metrics();
    expect(text).toContain('covey_s3_requests_total{op="get",code="503"} 12');
    expect(text).toContain('covey_s3_retries_total{op="get",reason="throttled"} 11');
  });

  it('keeps to the caller’s deadline over all attempts', async () => {
    faults({ unavailable: 1, latencyMs: 30 });
    const startedAtMs = Date.now();
    await expect(store.get('x', { timeoutMs: 200 })).rejects.toEqual(code('UNAVAILABLE'));
    expect(Date.now() - startedAtMs).toBeLessThan(400);
  });

  it('ends at once when aborted in the middle of a body', async () => {
    await store.put('stall', randomBytes(1000));
    faults({ stalled: 1 });
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 100);
    const startedAtMs = Date.now();
    await expect(store.get('stall', { signal: controller.signal })).rejects.toEqual(code('CANCELLED'));
    expect(Date.now() - startedAtMs).toBeLessThan(1000);
  });

  it('cancels downloads and uploads, and removes the temporary file', async () => {
    await writeFile(path.join(folder, 'up'), randomBytes(11 * MIB));
    await store.putFile('f', path.join(folder, 'up'));
    faults({ stalled: 1, latencyMs: 50 });
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 200);
    await expect(store.getFile('f', path.join(folder, 'down'), { signal: controller.signal })).rejects.toEqual(
      code('CANCELLED'),
    );
    const aborted = AbortSignal.timeout(100);
    await expect(store.putFile('g', path.join(folder, 'up'), { signal: aborted })).rejects.toMatchObject({
      code: expect.stringMatching(/CANCELLED|TIMEOUT/),
    });
    expect(await readdir(folder)).toEqual(['up']);
    faults({});
    expect(server.buckets.get('covey')!.uploads.size).toBe(0);
  });

  it('lists thousands of keys page by page', async () => {
    const { objects } = server.buckets.get('covey')!;
    for (let i = 0; i < 2500; i++)
      objects.set(`p/many/${String(i).padStart(5, '0')}&"`, { bytes: new Uint8Array(1), etag: 'e', modifiedAtMs: 0 });
    let count = 0;
    for await (const object of store.list('many/'))
      expect(object.key).toBe(`many/${String(count++).padStart(5, '0')}&"`);
    expect(count).toBe(2500);
  });

  it('keeps a multipart upload within ten thousand parts', () => {
    expect(partSizeBytes(100 * MIB, 8 * MIB)).toBe(8 * MIB);
    const terabyte = 2 ** 40;
    expect(Math.ceil(terabyte / partSizeBytes(terabyte, 8 * MIB))).toBeLessThanOrEqual(10_000);
  });

  it('refuses to work once closed', async () => {
    await store.close();
    await expect(store.get('x')).rejects.toEqual(code('CANCELLED'));
  });
});

describe('what the S3 store says when it is set up wrongly', () => {
  const open = (url: string, env: Record<string, string> = {}) =>
    openObjectStore(url, {
      env: { ...server.env, ...env },
      limits: { retry: { attemptsMax: 2, delayBaseMs: 1, delayMaxMs: 1 } },
    });

  it('names a missing bucket for every operation', async () => {
    const wrong = open('s3://no-such-bucket/p');
    const expected = expect.objectContaining({
      code: 'NOT_FOUND',
      message: expect.stringContaining('bucket no-such-bucket does not exist at http://127.0.0.1'),
    });
    await expect(wrong.get('x')).rejects.toEqual(expected);
    await expect(wrong.head('x')).rejects.toEqual(expected);
    await expect(wrong.put('x', Buffer.from('x'))).rejects.toEqual(expected);
    await expect(wrong.put('x', Buffer.from('x'), { ifMatch: 'e' })).rejects.toEqual(expected);
    await expect(wrong.delete('x')).rejects.toEqual(expected);
    await expect(wrong.list('')[Symbol.asyncIterator]().next()).rejects.toEqual(expected);
    await wrong.close();
  });

  it.each([
    ['access key', { COVEY_S3_ACCESS_KEY: 'nobody' }],
    ['secret key', { COVEY_S3_SECRET_KEY: 'hunter2hunter2' }],
  ])('says UNAUTHENTICATED for a wrong %s, without showing secrets', async (_, env) => {
    const wrong = open('s3://covey/p', env);
    for (const call of [() => wrong.get('x'), () => wrong.head('x'), () => wrong.put('x', Buffer.from('x'))]) {
      const error = await call().catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ code: 'UNAUTHENTICATED', message: expect.stringContaining('COVEY_S3_SECRET_KEY') });
      expect(JSON.stringify(error) + (error as Error).message).not.toMatch(/hunter2|test-secret/);
    }
    await wrong.close();
  });

  it('says UNAVAILABLE when nobody listens', async () => {
    const wrong = open('s3://covey/p', { COVEY_S3_ENDPOINT: 'http://127.0.0.1:1' });
    await expect(wrong.get('x')).rejects.toMatchObject({
      code: 'UNAVAILABLE',
      message: expect.stringContaining('connection refused'),
    });
    await wrong.close();
  });

  it('names the region when the server wants another', async () => {
    const wrong = open('s3://covey/p', { COVEY_S3_REGION: 'eu-west-9' });
    await expect(wrong.get('x')).rejects.toMatchObject({ message: expect.stringContaining('set COVEY_S3_REGION') });
    await wrong.close();
  });

  it('says what is missing before it contacts anyone', () => {
    const none = { COVEY_S3_ENDPOINT: server.url };
    expect(() => openObjectStore('s3://covey/p', { env: none })).toThrow(code('UNAUTHENTICATED'));
    expect(() =>
      openObjectStore('s3://covey/p', { env: { ...server.env, COVEY_S3_ENDPOINT: 'http://u:p@h/x' } }),
    ).toThrow(code('INVALID_ARGUMENT'));
    for (const url of ['s3://', 's3://UPPER/x', 's3://b/../x', 'gs://covey/p', '/tmp/x', 'file://host/x']) {
      expect(() => openObjectStore(url, { env: server.env })).toThrow(code('INVALID_ARGUMENT'));
    }
  });

  it('falls back to the AWS names of the environment', async () => {
    const { accessKey, secretKey, region } = server.credentials;
    const env = {
      AWS_ENDPOINT_URL: server.url,
      AWS_ACCESS_KEY_ID: accessKey,
      AWS_SECRET_ACCESS_KEY: secretKey,
      AWS_REGION: region,
    };
    const aws = openObjectStore('s3://covey', { env });
    await aws.put('x', Buffer.from('x'));
    expect(aws.url).toBe('s3://covey');
    await aws.close();
  });
});

describe('the test S3 server', () => {
  it('takes requests that the minio client signs in headers, and refuses a wrong secret', async () => {
    const { hostname: endPoint, port } = new URL(server.url);
    const connect = (secretKey: string) =>
      new Client({
        endPoint,
        port: Number(port),
        useSSL: false,
        accessKey: server.credentials.accessKey,
        secretKey,
        region: server.credentials.region,
      });
    const client = connect(server.credentials.secretKey);
    await client.putObject('covey', 'from minio/é+.bin', Buffer.from('hello'));
    expect((await client.statObject('covey', 'from minio/é+.bin')).size).toBe(5);
    await expect(connect('wrong').statObject('covey', 'from minio/é+.bin')).rejects.toThrow();
    const root = openObjectStore('s3://covey', { env: server.env });
    expect(Buffer.from((await root.get('from minio/é+.bin')).bytes).toString()).toBe('hello');
    await root.close();
  });

  it('refuses unsigned requests', async () => {
    expect((await fetch(`${server.url}/covey/p/x`)).status).toBe(403);
  });
});

describe('the probe of conditional writes', () => {
  it('refuses a server that ignores the conditions', async () => {
    // A real HTTP server in front of the test server which drops the condition headers, as some S3 servers do.
    const proxy = createServer(async (request, response) => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk as Buffer);
      const direct = openObjectStore('s3://covey', { env: server.env });
      const key = decodeURIComponent(new URL(request.url!, 'http://x').pathname.split('/').slice(2).join('/'));
      if (request.method === 'PUT') {
        response.setHeader('etag', (await direct.put(key, Buffer.concat(chunks))).etag).end();
      } else if (request.method === 'DELETE') {
        await direct.delete(key);
        response.writeHead(204).end();
      } else {
        const { bytes, etag } = await direct.get(key);
        response.writeHead(200, { etag, 'content-length': bytes.length }).end(bytes);
      }
      await direct.close();
    });
    await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
    const careless = openObjectStore('s3://covey', {
      env: { ...server.env, COVEY_S3_ENDPOINT: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}` },
    });
    await expect(probeConditionalWrites(careless)).rejects.toMatchObject({
      code: 'UNSUPPORTED',
      message: expect.stringContaining('2 of 2 racing writers won'),
    });
    await careless.close();
    proxy.closeAllConnections();
    await new Promise((resolve) => proxy.close(resolve));
  });
});
