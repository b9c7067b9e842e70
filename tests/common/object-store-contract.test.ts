import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CoveyError } from '../../common/errors.ts';
import type { ObjectStore } from '../../common/objectstore/object-store.ts';
import { openObjectStore } from '../../common/objectstore/open.ts';
import { probeConditionalWrites } from '../../common/objectstore/probe.ts';
import { RandomStream } from '../../common/random.ts';
import { startS3Server } from '../../common/testing/s3-server.ts';

interface Subject {
  readonly store: ObjectStore;
  stop(): Promise<void>;
}

const external = process.env['COVEY_TEST_S3_ENDPOINT'];
const limits = { partBytes: 5 * 2 ** 20, singlePutBytesMax: 6 * 2 ** 20 };

/** Every kind of store; the external one is any real S3 server, with its bucket in COVEY_TEST_S3_BUCKET and keys in COVEY_S3_*. */
const subjects: Record<string, { skip: string | false; open: () => Promise<Subject> }> = {
  file: {
    skip: false,
    open: async () => {
      const folder = await mkdtemp(path.join(os.tmpdir(), 'covey-contract-'));
      const store = openObjectStore(pathToFileURL(path.join(folder, 'not yet made')).href);
      return { store, stop: () => rm(folder, { recursive: true, force: true }) };
    },
  },
  memory: {
    skip: false,
    open: async () => ({ store: openObjectStore(`memory://contract-${crypto.randomUUID()}`), stop: async () => {} }),
  },
  's3 (in process)': {
    skip: false,
    open: async () => {
      const server = await startS3Server({ buckets: ['covey'] });
      return {
        store: openObjectStore('s3://covey/some/prefix', { env: server.env, limits }),
        stop: () => server.stop(),
      };
    },
  },
  's3 (external server)': {
    skip: external ? false : 'COVEY_TEST_S3_ENDPOINT is not set',
    open: async () => {
      const bucket = process.env['COVEY_TEST_S3_BUCKET'] ?? 'covey';
      const env = { ...process.env, COVEY_S3_ENDPOINT: external };
      const store = openObjectStore(`s3://${bucket}/contract-${crypto.randomUUID()}`, { env, limits });
      return {
        store,
        stop: async () => {
          for await (const { key } of store.list('')) await store.delete(key);
        },
      };
    },
  },
};

const BAD_KEYS = {
  'is empty': '',
  'starts with a slash': '/a',
  'ends with a slash': 'a/',
  'doubles a slash': 'a//b',
  'climbs out': '../a',
  'climbs inside': 'a/../b',
  'starts with a dot segment': './a',
  'ends with a dot segment': 'a/.',
  'holds a NUL': 'a\u0000b',
  'holds a backslash': 'a\\b',
  'is a lock of the file store': '.covey-lock-x',
  'is a temporary of the file store': 'a/.covey-tmp-1',
  'is longer than S3 allows': 'x'.repeat(1025),
  'is no Unicode': '\ud800',
};

const code = (wanted: string) => expect.objectContaining({ name: 'CoveyError', code: wanted });
const text = (bytes: Uint8Array) => Buffer.from(bytes).toString('utf8');

function randomBytes(length: number, seed: string): Uint8Array {
  const stream = new RandomStream('contract', seed);
  const words = new Uint32Array(Math.ceil(length / 4)).map(() => stream.uint32());
  return new Uint8Array(words.buffer, 0, length);
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

for (const [name, { skip, open }] of Object.entries(subjects)) {
  describe.skipIf(skip)(`an object store: ${name}${skip ? ` (skipped: ${skip})` : ''}`, () => {
    let subject: Subject;
    let store: ObjectStore;
    let folder: string;

    beforeAll(async () => {
      folder = await mkdtemp(path.join(os.tmpdir(), 'covey-contract-local-'));
      subject = await open();
      store = subject.store;
    });
    afterAll(async () => {
      await subject.stop();
      await store.close();
      await rm(folder, { recursive: true, force: true });
    });

    it('gives back what was put, and its etag', async () => {
      const { etag } = await store.put('a/b/c.bin', Buffer.from('hello'));
      const body = await store.get('a/b/c.bin');
      expect(text(body.bytes)).toBe('hello');
      expect(body.etag).toBe(etag);
      expect(await store.head('a/b/c.bin')).toMatchObject({ key: 'a/b/c.bin', sizeBytes: 5, etag });
    });

    it('stores an empty object', async () => {
      await store.put('empty', new Uint8Array(0));
      expect((await store.get('empty')).bytes.length).toBe(0);
      expect(await store.head('empty')).toMatchObject({ sizeBytes: 0 });
    });

    it('says when an object was changed, to within a minute', async () => {
      await store.put('when', Buffer.from('now'));
      const head = await store.head('when');
      expect(Math.abs(head!.modifiedAtMs - Date.now())).toBeLessThan(60_000);
    });

    it('refuses to read what is not there, and heads it as null', async () => {
      await expect(store.get('missing')).rejects.toEqual(code('NOT_FOUND'));
      await expect(store.get('a/b')).rejects.toEqual(code('NOT_FOUND'));
      await expect(store.getFile('missing', path.join(folder, 'missing'))).rejects.toEqual(code('NOT_FOUND'));
      expect(await store.head('missing')).toBeNull();
      expect(await readdir(folder)).toEqual([]);
    });

    it('reads byte ranges, cuts one that passes the end, and refuses one beyond it', async () => {
      const { etag } = await store.put('range', Buffer.from('0123456789'));
      const read = async (offset: number, length: number) =>
        text((await store.get('range', { range: { offset, length } })).bytes);
      expect(await read(0, 1)).toBe('0');
      expect(await read(3, 4)).toBe('3456');
      expect(await read(8, 100)).toBe('89');
      expect((await store.get('range', { range: { offset: 2, length: 2 } })).etag).toBe(etag);
      await expect(read(10, 1)).rejects.toEqual(code('INVALID_ARGUMENT'));
      await expect(read(0, 0)).rejects.toEqual(code('INVALID_ARGUMENT'));
      await expect(read(-1, 2)).rejects.toEqual(code('INVALID_ARGUMENT'));
    });

    it('overwrites without conditions and changes the etag with the content', async () => {
      const first = await store.put('over', Buffer.from('one'));
      const second = await store.put('over', Buffer.from('two'));
      expect(second.etag).not.toBe(first.etag);
      expect(text((await store.get('over')).bytes)).toBe('two');
    });

    it('creates only where nothing is, under ifAbsent', async () => {
      await store.put('once', Buffer.from('one'), { ifAbsent: true });
      await expect(store.put('once', Buffer.from('two'), { ifAbsent: true })).rejects.toEqual(
        code('PRECONDITION_FAILED'),
      );
      expect(text((await store.get('once')).bytes)).toBe('one');
    });

    it('replaces only the version it names, under ifMatch', async () => {
      const one = await store.put('cas', Buffer.from('one'));
      const two = await store.put('cas', Buffer.from('two'), { ifMatch: one.etag });
      await expect(store.put('cas', Buffer.from('three'), { ifMatch: one.etag })).rejects.toEqual(
        code('PRECONDITION_FAILED'),
      );
      expect(text((await store.get('cas')).bytes)).toBe('two');
      await store.delete('cas');
      await expect(store.put('cas', Buffer.from('four'), { ifMatch: two.etag })).rejects.toEqual(
        code('PRECONDITION_FAILED'),
      );
      expect(await store.head('cas')).toBeNull();
    });

    it('refuses both conditions at once', async () => {
      await expect(store.put('both', Buffer.from('x'), { ifAbsent: true, ifMatch: 'e' })).rejects.toEqual(
        code('INVALID_ARGUMENT'),
      );
    });

    it('lets exactly one of many racing writers win', async () => {
      const create = await Promise.allSettled(
        Array.from({ length: 8 }, (_, writer) =>
          store.put('race', Buffer.from(`writer ${writer}`), { ifAbsent: true }),
        ),
      );
      expect(create.filter((outcome) => outcome.status === 'fulfilled')).toHaveLength(1);
      const { etag } = await store.get('race');
      const replace = await Promise.allSettled(
        Array.from({ length: 8 }, (_, writer) => store.put('race', Buffer.from(`again ${writer}`), { ifMatch: etag })),
      );
      expect(replace.filter((outcome) => outcome.status === 'fulfilled')).toHaveLength(1);
      const reasons = [...create, ...replace].flatMap((outcome) =>
        outcome.status === 'rejected' ? [outcome.reason] : [],
      );
      for (const reason of reasons) expect(reason).toEqual(code('PRECONDITION_FAILED'));
    });

    it('loses no increment of a counter that many writers raise by compare-and-swap', async () => {
      await store.put('counter', Buffer.from('0 start'));
      const raise = async (writer: number) => {
        for (let done = 0; done < 5; ) {
          const { bytes, etag } = await store.get('counter');
          const next = `${Number.parseInt(text(bytes), 10) + 1} ${writer} ${done}`;
          try {
            await store.put('counter', Buffer.from(next), { ifMatch: etag });
            done++;
          } catch (error) {
            if (!CoveyError.is(error, 'PRECONDITION_FAILED')) throw error;
          }
        }
      };
      await Promise.all([0, 1, 2, 3].map(raise));
      expect(Number.parseInt(text((await store.get('counter')).bytes), 10)).toBe(20);
    });

    it('passes the probe of conditional writes and leaves nothing behind', async () => {
      await probeConditionalWrites(store);
      expect(await collect(store.list('probe/'))).toEqual([]);
    });

    it('lists by prefix in key order', async () => {
      const keys = ['l/a', 'l/a-b', 'l/b/c', 'l/b/d', 'l/é', 'l/z', 'lx'];
      for (const key of [...keys].reverse()) await store.put(key, Buffer.from(key));
      const listed = await collect(store.list('l/'));
      expect(listed.map((object) => object.key)).toEqual(['l/a', 'l/a-b', 'l/b/c', 'l/b/d', 'l/z', 'l/é']);
      expect(listed[0]).toMatchObject({ sizeBytes: 3, etag: (await store.head('l/a'))!.etag });
      expect((await collect(store.list('l/b'))).map((object) => object.key)).toEqual(['l/b/c', 'l/b/d']);
      expect((await collect(store.list('l'))).length).toBe(7);
      expect(await collect(store.list('nothing/'))).toEqual([]);
    });

    it('keeps keys with unusual characters apart', async () => {
      const keys = ['odd/a b', 'odd/a+b', 'odd/a%20b', "odd/q'(x)*!", 'odd/é&<>"', 'odd/日本', 'odd/~=?#[]@:$,;'];
      for (const key of keys) await store.put(key, Buffer.from(key));
      for (const key of keys) expect(text((await store.get(key)).bytes)).toBe(key);
      expect((await collect(store.list('odd/'))).map((object) => object.key).sort()).toEqual([...keys].sort());
    });

    it.each(Object.entries(BAD_KEYS))('refuses a key that %s', async (_, key) => {
      await expect(store.get(key)).rejects.toEqual(code('INVALID_ARGUMENT'));
      await expect(store.put(key, Buffer.from('x'))).rejects.toEqual(code('INVALID_ARGUMENT'));
      await expect(store.head(key)).rejects.toEqual(code('INVALID_ARGUMENT'));
      await expect(store.delete(key)).rejects.toEqual(code('INVALID_ARGUMENT'));
    });

    it('deletes, and deletes again without complaint', async () => {
      await store.put('gone', Buffer.from('x'));
      await store.delete('gone');
      await store.delete('gone');
      expect(await store.head('gone')).toBeNull();
    });

    it('carries files of every size up and down unchanged', async () => {
      for (const sizeBytes of [0, 1, 300_000, 5 * 2 ** 20, 12 * 2 ** 20 + 7]) {
        const bytes = randomBytes(sizeBytes, `size ${sizeBytes}`);
        await writeFile(path.join(folder, 'up'), bytes);
        const { etag } = await store.putFile('files/f', path.join(folder, 'up'));
        expect(await store.head('files/f')).toMatchObject({ sizeBytes, etag });
        expect(await store.getFile('files/f', path.join(folder, 'down'))).toBe(sizeBytes);
        expect(sha256(await readFile(path.join(folder, 'down')))).toBe(sha256(bytes));
      }
      expect((await readdir(folder)).sort()).toEqual(['down', 'up']);
    });

    it('puts a large body from memory', async () => {
      const bytes = randomBytes(11 * 2 ** 20 + 3, 'large');
      const { etag } = await store.put('large', bytes);
      const body = await store.get('large');
      expect(sha256(body.bytes)).toBe(sha256(bytes));
      expect(body.etag).toBe(etag);
      const range = { offset: 10 * 2 ** 20, length: 1000 };
      expect((await store.get('large', { range })).bytes).toEqual(
        bytes.slice(range.offset, range.offset + range.length),
      );
    });

    it('gives readers whole objects while a writer replaces them', async () => {
      const bodies = ['a', 'b'].map((letter) => Buffer.from(letter.repeat(100_000)));
      await store.put('swap', bodies[0]!);
      const write = async () => {
        for (let i = 0; i < 20; i++) await store.put('swap', bodies[i % 2]!);
      };
      const read = async () => {
        for (let i = 0; i < 20; i++) {
          const { bytes } = await store.get('swap');
          expect(bodies.some((body) => Buffer.compare(body, bytes) === 0)).toBe(true);
        }
      };
      await Promise.all([write(), read(), read()]);
    });

    it('stops at once when the signal is already aborted', async () => {
      const signal = AbortSignal.abort();
      await expect(store.get('a/b/c.bin', { signal })).rejects.toEqual(code('CANCELLED'));
      await expect(store.put('late', Buffer.from('x'), { signal })).rejects.toEqual(code('CANCELLED'));
      expect(await store.head('late')).toBeNull();
    });

    it('does not share memory with its callers', async () => {
      const bytes = Buffer.from('mine');
      await store.put('own', bytes);
      bytes.fill(0);
      (await store.get('own')).bytes.fill(0);
      expect(text((await store.get('own')).bytes)).toBe('mine');
    });
  });
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
