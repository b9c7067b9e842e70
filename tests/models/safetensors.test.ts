import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type HostTensor, readSafetensors, writeSafetensors } from '../../models/formats/safetensors.ts';

const tensor = (shape: number[], values: number[]): HostTensor => ({ shape, values: Float32Array.from(values) });

/** A file from its parts, as the format's README describes it. */
function file(header: unknown, data: Uint8Array | number[], headerText = JSON.stringify(header)): Uint8Array {
  const json = new TextEncoder().encode(headerText);
  const bytes = new Uint8Array(8 + json.length + data.length);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true);
  bytes.set(json, 8);
  bytes.set(data, 8 + json.length);
  return bytes;
}

describe('writing', () => {
  it('lays out length, padded JSON header and little-endian data, byte for byte', () => {
    const bytes = writeSafetensors(
      new Map([
        ['a', tensor([2], [1, -2])],
        ['s', tensor([], [0.5])],
      ]),
    );
    const headerBytes = Number(new DataView(bytes.buffer).getBigUint64(0, true));
    expect(headerBytes % 8).toBe(0);
    const header = new TextDecoder().decode(bytes.subarray(8, 8 + headerBytes));
    expect(header.startsWith('{')).toBe(true);
    expect(header.trimEnd()).toBe(
      '{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"s":{"dtype":"F32","shape":[],"data_offsets":[8,12]}}',
    );
    expect([...bytes.subarray(8 + headerBytes)]).toEqual([0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0, 0, 0, 0, 0x3f]);
  });

  it('refuses values that do not fill their shape', () => {
    expect(() => writeSafetensors(new Map([['a', tensor([3], [1, 2])]]))).toThrow(
      /'a' has 2 values for the shape \[3\]/,
    );
  });

  it('is undone by reading, for any tensors and metadata, also from an unaligned view', () => {
    const arbitrary = fc.dictionary(
      fc.string({ minLength: 1 }).filter((name) => name !== '__metadata__' && name !== '__proto__'),
      fc.array(fc.float({ noNaN: true }), { maxLength: 9 }),
      { maxKeys: 5 },
    );
    fc.assert(
      fc.property(arbitrary, fc.string(), fc.nat(7), (byName, note, shift) => {
        const tensors = new Map(
          Object.entries(byName).map(([name, values]) => [name, tensor([values.length], values)]),
        );
        const bytes = writeSafetensors(tensors, { note });
        const moved = Buffer.concat([Buffer.alloc(shift), bytes]).subarray(shift);
        const back = readSafetensors(moved);
        expect(back.tensors).toEqual(tensors);
        expect(back.metadata).toEqual({ format: 'pt', note });
      }),
    );
  });
});

describe('reading', () => {
  it('widens bfloat16 and float16 exactly', () => {
    const header = {
      b: { dtype: 'BF16', shape: [2], data_offsets: [0, 4] },
      h: { dtype: 'F16', shape: [6], data_offsets: [4, 16] },
    };
    // bf16: 1.0, -2.5; f16: 1.0, -2.0, 65504, smallest subnormal, infinity, 0.333…
    const data = [0x80, 0x3f, 0x20, 0xc0, 0x00, 0x3c, 0x00, 0xc0, 0xff, 0x7b, 0x01, 0x00, 0x00, 0x7c, 0x55, 0x35];
    const { tensors } = readSafetensors(file(header, data));
    expect([...tensors.get('b')!.values]).toEqual([1, -2.5]);
    expect([...tensors.get('h')!.values]).toEqual([1, -2, 65504, 2 ** -24, Number.POSITIVE_INFINITY, 0.333251953125]);
  });

  const f32 = (begin: number, end: number, shape = [1]) => ({ dtype: 'F32', shape, data_offsets: [begin, end] });
  it.each([
    ['a file cut inside its data', file({ a: f32(0, 4) }, [0, 0, 0]), /do not end where the file ends/],
    ['bytes after the last tensor', file({ a: f32(0, 4) }, [0, 0, 0, 0, 9]), /do not end where the file ends/],
    ['overlapping tensors', file({ a: f32(0, 4), b: f32(2, 6) }, new Uint8Array(6)), /'b' overlaps/],
    ['a gap', file({ a: f32(0, 4), b: f32(8, 12) }, new Uint8Array(12)), /leaves a gap/],
    ['offsets beyond the file', file({ a: f32(0, 4_000_000, [1_000_000]) }, new Uint8Array(4)), /do not end where/],
    ['a shape that does not fit the bytes', file({ a: f32(0, 4, [2]) }, new Uint8Array(4)), /'a' takes 4 bytes/],
    ['a negative size', file({ a: f32(0, 4, [-1]) }, new Uint8Array(4)), /'a' is malformed/],
    ['a header that is not JSON', file(null, [], '{oops'), /not a JSON object/],
    ['a header that is an array', file(null, [], '[1]'), /does not start with/],
    ['a file of five bytes', new Uint8Array(5), /shorter than its length field/],
    [
      'a header longer than the file',
      new Uint8Array([255, 255, 255, 255, 255, 255, 255, 255, 1]),
      /longer than the file/,
    ],
    ['metadata that is not strings', file({ __metadata__: { n: 1 } }, []), /not a map of strings/],
  ])('refuses %s', (_, bytes, message) => {
    expect(() => readSafetensors(bytes)).toThrow(message);
    expect(() => readSafetensors(bytes)).toThrow(expect.objectContaining({ code: 'DATA_CORRUPT' }));
  });

  it('says which element types it reads', () => {
    const bytes = file({ a: { dtype: 'I64', shape: [1], data_offsets: [0, 8] } }, new Uint8Array(8));
    expect(() => readSafetensors(bytes)).toThrow(/'a' is I64; covey reads F32, BF16, F16/);
  });
});
