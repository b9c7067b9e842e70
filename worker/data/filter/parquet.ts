import { parquetMetadataAsync, parquetReadObjects, parquetSchema } from 'hyparquet';
import { compressors } from 'hyparquet-compressors';
import { CoveyError, throwIfAborted } from '../../../common/errors.ts';
import type { ObjectStore } from '../../../common/objectstore/object-store.ts';
import type { Row } from './where.ts';

/** img2dataset's name for what a sample is called in its tar. */
const KEY_COLUMN = 'key';

/** The parquet file that img2dataset writes beside a tar: `00012.tar` → `00012.parquet`. */
export function parquetKeyOf(tarKey: string): string {
  return tarKey.replace(/\.tar$/, '.parquet');
}

/**
 * Rows of the parquet file beside a tar, by sample key, with those of `columns` that the file has; read by ranges, so that other columns cost
 * nothing. Undefined where there is no such file.
 * @throws CoveyError DATA_CORRUPT, naming the file, where it is not one or has no `key` column
 */
export async function parquetRowsBeside(
  store: ObjectStore,
  tarKey: string,
  columns: readonly string[],
  signal?: AbortSignal,
): Promise<ReadonlyMap<string, Row> | undefined> {
  const key = parquetKeyOf(tarKey);
  const call = signal === undefined ? {} : { signal };
  const object = await store.head(key, call);
  if (object === null) return undefined;
  const file = {
    byteLength: object.sizeBytes,
    slice: async (begin: number, end = object.sizeBytes): Promise<ArrayBuffer> => {
      throwIfAborted(signal);
      const { bytes } = await store.get(key, { range: { offset: begin, length: end - begin }, ...call });
      return Uint8Array.from(bytes).buffer;
    },
  };
  try {
    const metadata = await parquetMetadataAsync(file);
    const present = parquetSchema(metadata).children.map(({ element }) => element.name);
    if (!present.includes(KEY_COLUMN)) {
      throw new CoveyError(
        'DATA_CORRUPT',
        `Cannot read ${key}: it has no column ${KEY_COLUMN}, by which samples are found; it has ${present.join(', ')}`,
        { fields: { key } },
      );
    }
    const wanted = [...new Set([KEY_COLUMN, ...columns])].filter((name) => present.includes(name));
    const rows = await parquetReadObjects({ file, metadata, columns: wanted, compressors });
    return new Map(rows.map((row) => [String(row[KEY_COLUMN]), row]));
  } catch (thrown) {
    if (CoveyError.is(thrown)) throw thrown;
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    throw new CoveyError('DATA_CORRUPT', `Cannot read ${key}: it is not a parquet file covey reads: ${reason}`, {
      cause: thrown,
      fields: { key },
    });
  }
}
