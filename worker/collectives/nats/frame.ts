import { crc32 } from 'node:zlib';
import { CoveyError } from '../../../common/errors.ts';

/**
 * What travels beside the bytes. It goes in the message's reply subject, not in the payload: a chunk of a tensor is then sent as
 * it lies in memory, without building a header + body copy, and a 1 MiB chunk fits a server's default 1 MiB limit exactly.
 *
 * `cv1.<kind>.<generation>.<op>.<source>.<part>.<offset>.<total>.<crc>`, numbers in base 36. The CRC-32 covers the fields before
 * it and the payload, so that neither a flipped bit in the data nor a misrouted header goes unnoticed.
 */
export interface Frame {
  readonly kind: FrameKind;
  readonly generation: number;
  /** Decimal op number of a collective, or `s<rank>-<n>` of a state transfer. */
  readonly op: string;
  /** Rank of the sender. */
  readonly source: number;
  /** Which of the op's vectors. */
  readonly part: number;
  /** Of the payload within the transfer, bytes; in a probe, the number of chunks sent so far. */
  readonly offset: number;
  /** Of the whole transfer, bytes. */
  readonly total: number;
}

/** data; ack (receipts), nak (missing chunks), probe (sender asks for receipts); hello, welcome (handshake); fetch, info (state). */
export type FrameKind = 'd' | 'a' | 'n' | 'p' | 'h' | 'w' | 'f' | 'i';

const MAGIC = 'cv1';
const KINDS = 'danphwfi';

export function encodeFrame(frame: Frame, payload: Uint8Array): string {
  const fields =
    `${MAGIC}.${frame.kind}.${frame.generation.toString(36)}.${frame.op}.${frame.source.toString(36)}.` +
    `${frame.part.toString(36)}.${frame.offset.toString(36)}.${frame.total.toString(36)}`;
  return `${fields}.${checksum(fields, payload).toString(36)}`;
}

/** Throws DATA_CORRUPT where the message is not a frame or its checksum does not match. */
export function decodeFrame(text: string | undefined, payload: Uint8Array): Frame {
  const corrupt = (why: string) =>
    new CoveyError('DATA_CORRUPT', `Cannot read a tensor message: ${why}`, { fields: { header: text } });
  if (text === undefined) throw corrupt('it has no header');
  const end = text.lastIndexOf('.');
  const fields = text.slice(0, end);
  const [magic, kind, generation, op, source, part, offset, total, surplus] = fields.split('.');
  if (magic !== MAGIC || total === undefined || surplus !== undefined)
    throw corrupt('its header is not of this version');
  if (kind!.length !== 1 || !KINDS.includes(kind!)) throw corrupt(`its kind is ${kind}`);
  if (Number.parseInt(text.slice(end + 1), 36) !== checksum(fields, payload))
    throw corrupt('its checksum does not match');
  const number = (digits: string) => Number.parseInt(digits, 36);
  return {
    kind: kind as FrameKind,
    generation: number(generation!),
    op: op!,
    source: number(source!),
    part: number(part!),
    offset: number(offset!),
    total: number(total),
  };
}

function checksum(fields: string, payload: Uint8Array): number {
  const seed = crc32(fields);
  return payload.byteLength === 0 ? seed : crc32(payload, seed);
}
