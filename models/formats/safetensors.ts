import { CoveyError } from '../../common/errors.ts';
import { elementCount } from '../clip/parameter-shapes.ts';
import type { ByteSource } from './byte-source.ts';
import { widenBfloat16, widenFloat16 } from './float16.ts';
import { LENGTH_BYTES, parseHeader, readHeaderBytes, type TensorEntry } from './safetensors-header.ts';

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

/** How the element types that covey reads are widened. */
const READERS: Readonly<Record<string, (bytes: ArrayBuffer) => Float32Array>> = {
  F32: (bytes) => new Float32Array(bytes),
  BF16: (bytes) => widenBfloat16(new Uint16Array(bytes)),
  F16: (bytes) => widenFloat16(new Uint16Array(bytes)),
};

/**
 * Reads a whole file; the tensors are copies and do not keep `bytes` alive.
 * @param file its name, for messages
 * @throws CoveyError DATA_CORRUPT naming what is wrong and where; UNSUPPORTED for an element type that is not a float of 16 or 32 bits
 */
export function readSafetensors(bytes: Uint8Array, file = 'safetensors'): SafetensorsFile {
  const headerBytes = readHeaderBytes(bytes.subarray(0, LENGTH_BYTES), bytes.length, file);
  const dataStart = LENGTH_BYTES + headerBytes;
  const { entries, metadata } = parseHeader(bytes.subarray(LENGTH_BYTES, dataStart), bytes.length - dataStart, file);
  const tensors = new Map<string, HostTensor>();
  for (const entry of entries) {
    const reader = readerOf(entry, file);
    const own = Uint8Array.prototype.slice.call(bytes, dataStart + entry.begin, dataStart + entry.end);
    tensors.set(entry.name, { shape: entry.shape, values: reader(own.buffer as ArrayBuffer) });
  }
  return { tensors, metadata };
}

/**
 * The same from a source, tensor by tensor: nothing is read or allocated before the header has been checked against the file's size.
 * @param wanted leaves out tensors by name, of whatever element type. Default: all are read
 */
export async function readSafetensorsFrom(
  source: ByteSource,
  wanted: (name: string) => boolean = () => true,
): Promise<SafetensorsFile> {
  const { name: file, sizeBytes } = source;
  const headerBytes = readHeaderBytes(await source.read(0, Math.min(LENGTH_BYTES, sizeBytes)), sizeBytes, file);
  const dataStart = LENGTH_BYTES + headerBytes;
  const header = parseHeader(await source.read(LENGTH_BYTES, headerBytes), sizeBytes - dataStart, file);
  const entries = header.entries.filter(({ name }) => wanted(name));
  const readers = entries.map((entry) => readerOf(entry, file));
  const tensors = new Map<string, HostTensor>();
  for (const [i, { name, shape, begin, end }] of entries.entries()) {
    const bytes = await source.read(dataStart + begin, end - begin);
    tensors.set(name, { shape, values: readers[i]!(bytes.buffer as ArrayBuffer) });
  }
  return { tensors, metadata: header.metadata };
}

function readerOf({ name, dtype }: TensorEntry, file: string): (bytes: ArrayBuffer) => Float32Array {
  const reader = READERS[dtype];
  if (reader) return reader;
  throw new CoveyError(
    'UNSUPPORTED',
    `Cannot read ${file}: '${name}' is ${dtype}; covey reads ${Object.keys(READERS).join(', ')}`,
    { fields: { name, dtype } },
  );
}
