import { open, stat } from 'node:fs/promises';
import path from 'node:path';
import { CoveyError } from '../../common/errors.ts';
import type { ObjectStore } from '../../common/objectstore/object-store.ts';

/** A file of known size, read by ranges: a reader of strangers' files takes no more of it than it has checked. Closed by who opened it. */
export interface ByteSource {
  /** For messages. */
  readonly name: string;
  readonly sizeBytes: number;
  /** Exactly `length` bytes, alone in their buffer. @throws CoveyError DATA_CORRUPT where the range is not inside the file */
  read(offset: number, length: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

/** The files of one model, wherever they lie. */
export interface ModelFiles {
  /** For messages. */
  readonly url: string;
  /** Undefined where there is no such file. */
  open(name: string): Promise<ByteSource | undefined>;
}

function checkRange(source: ByteSource, offset: number, length: number): void {
  if (offset >= 0 && length >= 0 && offset + length <= source.sizeBytes) return;
  throw new CoveyError(
    'DATA_CORRUPT',
    `Cannot read ${source.name}: bytes ${offset} to ${offset + length} are not in a file of ${source.sizeBytes}`,
    { fields: { offset, length, sizeBytes: source.sizeBytes } },
  );
}

/** Not `slice`: a Buffer's is a view of what may be a pool. */
const ownCopy = (bytes: Uint8Array) => new Uint8Array(bytes);

/** Bytes that are already in memory. */
export function memorySource(name: string, bytes: Uint8Array): ByteSource {
  const source: ByteSource = {
    name,
    sizeBytes: bytes.length,
    read: async (offset, length) => {
      checkRange(source, offset, length);
      return ownCopy(bytes.subarray(offset, offset + length));
    },
    close: async () => {},
  };
  return source;
}

/** A file of this machine. @throws CoveyError NOT_FOUND */
export async function fileSource(file: string): Promise<ByteSource> {
  const handle = await open(file).catch((thrown: unknown) => {
    throw new CoveyError('NOT_FOUND', `Cannot read ${file}: there is no such file, or it may not be read`, {
      cause: thrown,
      fields: { file },
    });
  });
  const { size } = await handle.stat();
  const source: ByteSource = {
    name: file,
    sizeBytes: size,
    read: async (offset, length) => {
      checkRange(source, offset, length);
      const bytes = new Uint8Array(length);
      for (let done = 0; done < length; ) {
        const { bytesRead } = await handle.read(bytes, done, length - done, offset + done);
        if (bytesRead === 0) checkRange({ ...source, sizeBytes: offset + done }, offset, length);
        done += bytesRead;
      }
      return bytes;
    },
    close: () => handle.close(),
  };
  return source;
}

/** A folder of this machine. */
export function folderFiles(dir: string): ModelFiles {
  return {
    url: dir,
    open: async (name) => {
      const file = path.join(dir, name);
      const found = await stat(file).catch(() => undefined);
      return found?.isFile() ? fileSource(file) : undefined;
    },
  };
}

/** What lies under a prefix of an object store. The store stays its owner's. */
export function storeFiles(store: ObjectStore, prefix: string, signal?: AbortSignal): ModelFiles {
  const call = signal ? { signal } : {};
  const under = (name: string) => (prefix === '' ? name : `${prefix}/${name}`);
  return {
    url: `${store.url}/${prefix}`,
    open: async (name) => {
      const key = under(name);
      const head = await store.head(key, call);
      if (!head) return undefined;
      const source: ByteSource = {
        name: `${store.url}/${key}`,
        sizeBytes: head.sizeBytes,
        read: async (offset, length) => {
          checkRange(source, offset, length);
          if (length === 0) return new Uint8Array(0);
          const { bytes } = await store.get(key, { ...call, range: { offset, length } });
          return bytes.byteLength === bytes.buffer.byteLength ? bytes : ownCopy(bytes);
        },
        close: async () => {},
      };
      return source;
    },
  };
}

/** A whole file, as long as it is no longer than `bytesMax`; undefined where there is none. @throws CoveyError DATA_CORRUPT */
export async function readWhole(files: ModelFiles, name: string, bytesMax: number): Promise<Uint8Array | undefined> {
  const source = await files.open(name);
  if (!source) return undefined;
  try {
    if (source.sizeBytes > bytesMax) {
      throw new CoveyError(
        'DATA_CORRUPT',
        `Cannot read ${source.name}: it has ${source.sizeBytes} bytes, such a file has at most ${bytesMax}`,
        { fields: { sizeBytes: source.sizeBytes, bytesMax } },
      );
    }
    return await source.read(0, source.sizeBytes);
  } finally {
    await source.close();
  }
}
