import { z } from 'zod';
import { CoveyError } from '../../common/errors.ts';
import { elementCount } from '../clip/parameter-shapes.ts';

/** The header of a safetensors file, checked before a byte of the data is looked at. */

export const LENGTH_BYTES = 8;

/** The format allows 100 MB. Thousands of tensors need a few hundred kB; a stranger's header must not cost more than it is worth. */
const HEADER_BYTES_MAX = 10_000_000;

/** Bytes of one element (safetensors, tensor.rs). */
const DTYPE_BYTES: Readonly<Record<string, number>> = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E5M2: 1,
  F8_E4M3: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  F64: 8,
  I64: 8,
  U64: 8,
};

export interface TensorEntry {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Where its bytes lie, from the start of the data. */
  readonly begin: number;
  readonly end: number;
}

export interface SafetensorsHeader {
  readonly entries: readonly TensorEntry[];
  readonly metadata: Readonly<Record<string, string>>;
}

const entrySchema = z.strictObject({
  dtype: z.string(),
  shape: z.array(z.int().min(0)).max(16),
  data_offsets: z.tuple([z.int().min(0), z.int().min(0)]),
});
const headerSchema = z.record(z.string(), z.unknown());
const metadataSchema = z.record(z.string(), z.string());

/**
 * The header's length, of the file's first bytes.
 * @param file its name, for messages
 * @throws CoveyError DATA_CORRUPT for one that cannot be
 */
export function readHeaderBytes(first: Uint8Array, fileBytes: number, file: string): number {
  if (first.length < LENGTH_BYTES)
    throw corrupt(file, 'the file is shorter than its length field', { bytes: fileBytes });
  const headerBytes = Number(new DataView(first.buffer, first.byteOffset).getBigUint64(0, true));
  if (headerBytes > HEADER_BYTES_MAX || LENGTH_BYTES + headerBytes > fileBytes) {
    throw corrupt(file, `the header is longer than the file or than ${HEADER_BYTES_MAX} bytes`, {
      headerBytes,
      fileBytes,
    });
  }
  return headerBytes;
}

/**
 * The header's content, where all of it holds together: known element types, sizes that fit their shapes, data that the tensors cover
 * exactly.
 * @param file its name, for messages
 * @throws CoveyError DATA_CORRUPT, UNSUPPORTED for an unknown element type
 */
export function parseHeader(bytes: Uint8Array, dataBytes: number, file: string): SafetensorsHeader {
  const { __metadata__: rawMetadata, ...rawEntries } = parseJson(bytes, file);
  const metadata = metadataSchema.safeParse(rawMetadata ?? {});
  if (!metadata.success) throw corrupt(file, '__metadata__ is not a map of strings', {});
  const entries = Object.entries(rawEntries).map(([name, raw]) => readEntry(name, raw, file));
  checkLayout(entries, dataBytes, file);
  return { entries, metadata: metadata.data };
}

function parseJson(bytes: Uint8Array, file: string): Record<string, unknown> {
  const headerBytes = bytes.length;
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    if (text.startsWith('{')) return headerSchema.parse(JSON.parse(text));
  } catch (error) {
    throw corrupt(file, 'the header is not a JSON object', { headerBytes }, error);
  }
  throw corrupt(file, "the header does not start with '{'", { headerBytes });
}

function readEntry(name: string, raw: unknown, file: string): TensorEntry {
  const parsed = entrySchema.safeParse(raw);
  if (!parsed.success) throw corrupt(file, `the entry of '${name}' is malformed`, { name });
  const { dtype, shape, data_offsets } = parsed.data;
  const elementBytes = Object.hasOwn(DTYPE_BYTES, dtype) ? DTYPE_BYTES[dtype] : undefined;
  if (elementBytes === undefined) {
    throw new CoveyError('UNSUPPORTED', `Cannot read ${file}: '${name}' is of an unknown element type ${dtype}`, {
      fields: { name, dtype },
    });
  }
  const [begin, end] = data_offsets;
  const bytes = end - begin;
  if (bytes !== elementCount(shape) * elementBytes) {
    throw corrupt(file, `'${name}' takes ${bytes} bytes and its shape [${shape}] of ${dtype} another number`, {
      name,
      bytes,
    });
  }
  return { name, dtype, shape, begin, end };
}

/** The tensors must cover the data exactly: no overlap, no gap, nothing beyond the end (the format's own rule). */
function checkLayout(entries: readonly TensorEntry[], dataBytes: number, file: string): void {
  let expected = 0;
  for (const { name, begin, end } of entries.toSorted((a, b) => a.begin - b.begin || a.end - b.end)) {
    if (begin !== expected)
      throw corrupt(file, `'${name}' overlaps its neighbour or leaves a gap`, { name, begin, expected });
    expected = end;
  }
  if (expected !== dataBytes)
    throw corrupt(file, 'the tensors do not end where the file ends', { expected, dataBytes });
}

function corrupt(file: string, reason: string, fields: Record<string, unknown>, cause?: unknown): CoveyError {
  const seen = Object.entries(fields)
    .map(([key, value]) => `${key} ${value}`)
    .join(', ');
  return new CoveyError(
    'DATA_CORRUPT',
    `Cannot read ${file}: ${reason}${seen ? ` (${seen})` : ''}; fetch or export the file again`,
    { fields, cause },
  );
}
