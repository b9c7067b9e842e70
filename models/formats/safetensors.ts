import { z } from 'zod';
import { CoveyError } from '../../common/errors.ts';
import { elementCount } from '../clip/parameter-shapes.ts';
import { widenBfloat16, widenFloat16 } from './float16.ts';

/**
 * The safetensors format (huggingface/safetensors README): u64 little-endian header length N, N bytes of JSON starting with `{`,
 * then the tensors' bytes without gaps, little-endian. Written as float32; float32, bfloat16 and float16 are read.
 */

/** A tensor on the host, float32, row-major. */
export interface HostTensor {
  readonly shape: readonly number[];
  readonly values: Float32Array;
}

export interface SafetensorsFile {
  readonly tensors: Map<string, HostTensor>;
  readonly metadata: Readonly<Record<string, string>>;
}

/** The format's own limit on the header. */
const HEADER_BYTES_MAX = 100_000_000;
const LENGTH_BYTES = 8;
const ALIGNMENT_BYTES = 8;

/**
 * The bytes of a file that holds the tensors in the map's order.
 * @param metadata string to string; `format: pt` is what PyTorch readers look for and is there by default
 * @throws CoveyError INVALID_ARGUMENT where values do not fill their shape
 */
export function writeSafetensors(
  tensors: ReadonlyMap<string, HostTensor>,
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array {
  const header: Record<string, unknown> = { __metadata__: { format: 'pt', ...metadata } };
  let dataBytes = 0;
  for (const [name, { shape, values }] of tensors) {
    if (values.length !== elementCount(shape) || name === '__metadata__') {
      throw new CoveyError(
        'INVALID_ARGUMENT',
        `Cannot write safetensors: '${name}' has ${values.length} values for the shape [${shape}]`,
        { fields: { name, shape, values: values.length } },
      );
    }
    header[name] = { dtype: 'F32', shape, data_offsets: [dataBytes, dataBytes + values.byteLength] };
    dataBytes += values.byteLength;
  }
  const json = new TextEncoder().encode(JSON.stringify(header));
  const headerBytes = Math.ceil(json.length / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
  const file = new Uint8Array(LENGTH_BYTES + headerBytes + dataBytes);
  new DataView(file.buffer).setBigUint64(0, BigInt(headerBytes), true);
  file.fill(0x20, LENGTH_BYTES, LENGTH_BYTES + headerBytes).set(json, LENGTH_BYTES);
  let offset = LENGTH_BYTES + headerBytes;
  for (const { values } of tensors.values()) {
    file.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), offset);
    offset += values.byteLength;
  }
  return file;
}

const entrySchema = z.strictObject({
  dtype: z.string(),
  shape: z.array(z.int().min(0)),
  data_offsets: z.tuple([z.int().min(0), z.int().min(0)]),
});
const headerSchema = z.record(z.string(), z.unknown());
const metadataSchema = z.record(z.string(), z.string());

type Entry = z.infer<typeof entrySchema>;

/** Bytes of one element and how to widen it. */
const DTYPES: Readonly<Record<string, { bytes: number; read: (bytes: ArrayBuffer) => Float32Array }>> = {
  F32: { bytes: 4, read: (bytes) => new Float32Array(bytes) },
  BF16: { bytes: 2, read: (bytes) => widenBfloat16(new Uint16Array(bytes)) },
  F16: { bytes: 2, read: (bytes) => widenFloat16(new Uint16Array(bytes)) },
};

/**
 * Reads a whole file; the tensors are copies and do not keep `file` alive.
 * @throws CoveyError DATA_CORRUPT naming what is wrong and where; UNSUPPORTED for an element type that is not a float of 16 or 32 bits
 */
export function readSafetensors(file: Uint8Array): SafetensorsFile {
  const { header, dataStart } = readHeader(file);
  const { __metadata__: rawMetadata, ...rawEntries } = header;
  const metadata = metadataSchema.safeParse(rawMetadata ?? {});
  if (!metadata.success) throw corrupt('__metadata__ is not a map of strings', {});
  const entries = Object.entries(rawEntries).map(([name, raw]) => ({ name, ...readEntry(name, raw) }));
  checkLayout(entries, file.length - dataStart);
  const tensors = new Map<string, HostTensor>();
  for (const { name, dtype, shape, data_offsets } of entries) {
    const [begin, end] = data_offsets;
    const bytes = Uint8Array.prototype.slice.call(file, dataStart + begin, dataStart + end).buffer as ArrayBuffer;
    tensors.set(name, { shape, values: DTYPES[dtype]!.read(bytes) });
  }
  return { tensors, metadata: metadata.data };
}

function readHeader(file: Uint8Array): { header: Record<string, unknown>; dataStart: number } {
  if (file.length < LENGTH_BYTES) throw corrupt('the file is shorter than its length field', { bytes: file.length });
  const length = Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true));
  const dataStart = LENGTH_BYTES + length;
  if (length > HEADER_BYTES_MAX || dataStart > file.length) {
    throw corrupt('the header is longer than the file or the format allows', {
      headerBytes: length,
      fileBytes: file.length,
    });
  }
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(file.subarray(LENGTH_BYTES, dataStart));
    if (text.startsWith('{')) return { header: headerSchema.parse(JSON.parse(text)), dataStart };
  } catch (error) {
    throw corrupt('the header is not a JSON object', { headerBytes: length }, error);
  }
  throw corrupt("the header does not start with '{'", { headerBytes: length });
}

function readEntry(name: string, raw: unknown): Entry {
  const parsed = entrySchema.safeParse(raw);
  if (!parsed.success) throw corrupt(`the entry of '${name}' is malformed`, { name });
  const { dtype, shape, data_offsets } = parsed.data;
  const type = Object.hasOwn(DTYPES, dtype) ? DTYPES[dtype] : undefined;
  if (!type) {
    throw new CoveyError(
      'UNSUPPORTED',
      `Cannot read safetensors: '${name}' is ${dtype}; covey reads ${Object.keys(DTYPES).join(', ')}`,
      {
        fields: { name, dtype },
      },
    );
  }
  const bytes = data_offsets[1] - data_offsets[0];
  if (bytes !== elementCount(shape) * type.bytes) {
    throw corrupt(`'${name}' takes ${bytes} bytes and its shape [${shape}] of ${dtype} another number`, {
      name,
      bytes,
    });
  }
  return parsed.data;
}

/** The tensors must cover the data exactly: no overlap, no gap, nothing beyond the end (the format's own rule). */
function checkLayout(entries: readonly (Entry & { name: string })[], dataBytes: number): void {
  let expected = 0;
  for (const { name, data_offsets } of entries.toSorted(
    (a, b) => a.data_offsets[0] - b.data_offsets[0] || a.data_offsets[1] - b.data_offsets[1],
  )) {
    const [begin, end] = data_offsets;
    if (begin !== expected)
      throw corrupt(`'${name}' overlaps its neighbour or leaves a gap`, { name, begin, expected });
    expected = end;
  }
  if (expected !== dataBytes) throw corrupt('the tensors do not end where the file ends', { expected, dataBytes });
}

function corrupt(reason: string, fields: Record<string, unknown>, cause?: unknown): CoveyError {
  const seen = Object.entries(fields)
    .map(([key, value]) => `${key} ${value}`)
    .join(', ');
  return new CoveyError(
    'DATA_CORRUPT',
    `Cannot read safetensors: ${reason}${seen ? ` (${seen})` : ''}; fetch or export the file again`,
    {
      fields,
      cause,
    },
  );
}
