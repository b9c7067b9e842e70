import { CoveyError } from '../../common/errors.ts';

/**
 * NumPy's array files, version 1.0 (numpy `lib/format.py`): magic, header length, a Python dict padded to 64 bytes, then the values.
 * float32, C order.
 */
const MAGIC = Uint8Array.of(0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0);
const ALIGNMENT_BYTES = 64;
const HEADER = /^\{'descr': '<f4', 'fortran_order': False, 'shape': \((\d+), (\d+)\), \}\s*$/;

/** A matrix [rows, columns], row-major. */
export interface Matrix {
  readonly values: Float32Array;
  readonly columns: number;
}

export function writeNpy({ values, columns }: Matrix): Uint8Array {
  const rows = columns === 0 ? 0 : values.length / columns;
  const dict = `{'descr': '<f4', 'fortran_order': False, 'shape': (${rows}, ${columns}), }`;
  const unpadded = MAGIC.length + 2 + dict.length + 1;
  const headerBytes = Math.ceil(unpadded / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
  const header = `${dict.padEnd(headerBytes - MAGIC.length - 3)}\n`;
  const file = new Uint8Array(headerBytes + values.byteLength);
  file.set(MAGIC);
  new DataView(file.buffer).setUint16(MAGIC.length, header.length, true);
  file.set(new TextEncoder().encode(header), MAGIC.length + 2);
  file.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), headerBytes);
  return file;
}

/** @throws CoveyError DATA_CORRUPT for anything but a float32 matrix in C order, whole */
export function readNpy(file: Uint8Array): Matrix {
  const start = MAGIC.length + 2;
  if (file.length < start || MAGIC.some((byte, i) => file[i] !== byte))
    throw corrupt('it is no npy file of version 1.0');
  const length = new DataView(file.buffer, file.byteOffset).getUint16(MAGIC.length, true);
  const shape = HEADER.exec(new TextDecoder().decode(file.subarray(start, start + length)));
  if (shape === null) throw corrupt('it is not a float32 matrix in C order');
  const [rows, columns] = [Number(shape[1]), Number(shape[2])];
  // A Buffer's own `slice` is a view of its pool; this is a copy.
  const bytes = Uint8Array.prototype.slice.call(file, start + length);
  if (bytes.length !== rows * columns * 4) {
    throw corrupt(`${bytes.length} bytes are not ${rows} rows of ${columns} float32`);
  }
  return { values: new Float32Array(bytes.buffer), columns };
}

function corrupt(reason: string): CoveyError {
  return new CoveyError('DATA_CORRUPT', `Cannot read the features: ${reason}; make them again with \`covey embed\``);
}
