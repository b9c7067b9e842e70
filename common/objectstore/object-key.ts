import { CoveyError } from '../errors.ts';

/** S3's limit, bytes of UTF-8. */
const KEY_BYTES_MAX = 1024;

/** Names that the file store keeps for itself; refused everywhere, so that data moves freely between stores. */
export const RESERVED_SEGMENT_PREFIX = '.covey-';

/** Throws INVALID_ARGUMENT unless `key` is relative, `/`-separated, without empty, `.`, `..` or reserved segments, at most 1024 bytes. */
export function checkObjectKey(key: string): void {
  const problem = keyProblem(key);
  if (problem !== undefined) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot use object key: ${problem}: ${JSON.stringify(key.slice(0, 200))}`,
      {
        fields: { key },
      },
    );
  }
}

function keyProblem(key: string): string | undefined {
  if (key === '') return 'it is empty';
  if (Buffer.byteLength(key) > KEY_BYTES_MAX) return `it is longer than ${KEY_BYTES_MAX} bytes`;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: exactly these are refused
  if (/[\u0000-\u001f\u007f\\]/.test(key)) return 'it holds a control character or a backslash';
  // A lone surrogate has no UTF-8 form: two such keys would become the same object.
  if (Buffer.from(key, 'utf8').toString('utf8') !== key) return 'it is not well-formed Unicode';
  for (const segment of key.split('/')) {
    if (segment === '') return 'it has an empty segment (a leading, trailing or doubled slash)';
    if (segment === '.' || segment === '..') return 'it has a `.` or `..` segment';
    if (segment.startsWith(RESERVED_SEGMENT_PREFIX)) return `a segment starts with ${RESERVED_SEGMENT_PREFIX}`;
  }
  return undefined;
}

/** Throws INVALID_ARGUMENT unless a byte range is two whole numbers, length at least 1. */
export function checkRange(key: string, range: { readonly offset: number; readonly length: number }): void {
  const { offset, length } = range;
  if (Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 1) return;
  throw new CoveyError(
    'INVALID_ARGUMENT',
    `Cannot read ${key}: range must have offset >= 0 and length >= 1: offset ${offset}, length ${length}`,
    {
      fields: { key, offset, length },
    },
  );
}

/** Throws INVALID_ARGUMENT where both conditions are given: no server promises that combination. */
export function checkPutConditions(
  key: string,
  options: { readonly ifAbsent?: boolean; readonly ifMatch?: string },
): void {
  if (options.ifAbsent && options.ifMatch !== undefined) {
    throw new CoveyError('INVALID_ARGUMENT', `Cannot put ${key}: ifAbsent and ifMatch exclude each other`, {
      fields: { key },
    });
  }
}

/** NOT_FOUND for an object, the same words from every store. */
export function objectNotFound(storeUrl: string, key: string, cause?: unknown): CoveyError {
  return new CoveyError('NOT_FOUND', `Cannot read ${key}: no such object in ${storeUrl}`, {
    fields: { key, store: storeUrl },
    ...(cause === undefined ? {} : { cause }),
  });
}

/** PRECONDITION_FAILED for a lost conditional write, the same words from every store. */
export function conditionLost(
  storeUrl: string,
  key: string,
  options: { readonly ifAbsent?: boolean; readonly ifMatch?: string },
): CoveyError {
  const expected = options.ifAbsent ? 'it already exists' : `it no longer has etag ${options.ifMatch}`;
  return new CoveyError('PRECONDITION_FAILED', `Cannot write ${key}: ${expected}; read it again and decide again`, {
    fields: { key, store: storeUrl, ...options },
  });
}

/** INVALID_ARGUMENT for a range that begins at or after the end of the object. */
export function rangeOutside(key: string, offset: number, sizeBytes: number): CoveyError {
  return new CoveyError(
    'INVALID_ARGUMENT',
    `Cannot read ${key}: the range starts at ${offset} but the object has ${sizeBytes} bytes`,
    {
      fields: { key, offset, sizeBytes },
    },
  );
}
