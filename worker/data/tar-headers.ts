/** Reading of tar headers: ustar, GNU and PAX (POSIX.1-2001 pax; GNU tar manual, "Basic Tar Format"). */
export const TAR_BLOCK = 512;

export interface TarHeader {
  readonly name: string;
  readonly sizeBytes: number;
  /** The type flag: '0' file, '5' folder, 'L' GNU long name, 'x' PAX, … */
  readonly type: string;
}

const decoder = new TextDecoder();

/** Null for a block of zeros; undefined where the checksum is wrong. */
export function parseTarHeader(block: Uint8Array): TarHeader | null | undefined {
  if (block.every((byte) => byte === 0)) return null;
  if (checksum(block) !== octal(block, 148, 8)) return undefined;
  const sizeBytes = number(block, 124, 12);
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0) return undefined;
  const isUstar = text(block, 257, 5) === 'ustar';
  const isGnu = isUstar && block[263] === 0x20;
  const prefix = isUstar && !isGnu ? text(block, 345, 155) : '';
  const name = text(block, 0, 100);
  const type = String.fromCharCode(block[156]!);
  return {
    name: prefix === '' ? name : `${prefix}/${name}`,
    sizeBytes,
    type: type === '\0' || type === '7' ? '0' : type,
  };
}

/** The records of a PAX extended header: `<length> <key>=<value>\n`. Broken records end the reading. */
export function parsePax(bytes: Uint8Array): Map<string, string> {
  const records = new Map<string, string>();
  let offset = 0;
  while (offset < bytes.length) {
    const space = bytes.indexOf(0x20, offset);
    const length = Number(decoder.decode(bytes.subarray(offset, space)));
    if (space < 0 || !Number.isInteger(length) || length <= 0 || offset + length > bytes.length) break;
    const record = decoder.decode(bytes.subarray(space + 1, offset + length - 1));
    const equals = record.indexOf('=');
    if (equals > 0) records.set(record.slice(0, equals), record.slice(equals + 1));
    offset += length;
  }
  return records;
}

/** A GNU long name: NUL-terminated. */
export function parseLongName(bytes: Uint8Array): string {
  return text(bytes, 0, bytes.length);
}

/** Bytes of a member including its padding. */
export function paddedSize(sizeBytes: number): number {
  return Math.ceil(sizeBytes / TAR_BLOCK) * TAR_BLOCK;
}

/** One regular file with fixed owner, mode and time, so that the same members make the same tar. `name` must fit 100 bytes of UTF-8. */
export function tarHeader(name: string, sizeBytes: number): Uint8Array {
  const block = new Uint8Array(TAR_BLOCK);
  const put = (offset: number, value: string) => block.set(new TextEncoder().encode(value), offset);
  put(0, name);
  put(100, '0000644\0');
  put(108, '0000000\0');
  put(116, '0000000\0');
  put(124, `${sizeBytes.toString(8).padStart(11, '0')}\0`);
  put(136, '00000000000\0');
  put(156, '0');
  put(257, 'ustar\0');
  put(263, '00');
  put(148, `${checksum(block).toString(8).padStart(6, '0')}\0 `);
  return block;
}

/** Sum of all bytes, the checksum field counted as spaces. */
function checksum(block: Uint8Array): number {
  let sum = 8 * 0x20;
  for (let i = 0; i < TAR_BLOCK; i++) if (i < 148 || i >= 156) sum += block[i]!;
  return sum;
}

function text(block: Uint8Array, offset: number, length: number): string {
  const field = block.subarray(offset, offset + length);
  const end = field.indexOf(0);
  return decoder.decode(end < 0 ? field : field.subarray(0, end));
}

function octal(block: Uint8Array, offset: number, length: number): number {
  const digits = text(block, offset, length).trim();
  return /^[0-7]+$/.test(digits) ? Number.parseInt(digits, 8) : digits === '' ? 0 : Number.NaN;
}

/** Octal, or GNU's base-256 where the first bit is set. */
function number(block: Uint8Array, offset: number, length: number): number {
  if ((block[offset]! & 0x80) === 0) return octal(block, offset, length);
  let value = block[offset]! & 0x7f;
  for (let i = 1; i < length; i++) value = value * 256 + block[offset + i]!;
  return value;
}
