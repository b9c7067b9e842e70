import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { CoveyError } from '../../common/errors.ts';
import { type ByteSource, memorySource } from '../../models/formats/byte-source.ts';
import { readPickle } from '../../models/formats/restricted-pickle.ts';
import { readStateDict } from '../../models/formats/state-dict.ts';

const fixture = (name: string) => readFile(new URL(`fixtures/formats/${name}`, import.meta.url));

/** A source that claims any size and remembers how much of it was read. */
function countingSource(start: Uint8Array, sizeBytes = start.length): ByteSource & { readBytes: number } {
  const source = {
    name: 'weights',
    sizeBytes,
    readBytes: 0,
    read: async (offset: number, length: number) => {
      source.readBytes += length;
      const bytes = new Uint8Array(length);
      bytes.set(start.subarray(offset, offset + length));
      return bytes;
    },
    close: async () => {},
  };
  return source;
}

function safetensors(header: object | string, dataBytes: number, claimedHeaderBytes?: number): Uint8Array {
  const json = new TextEncoder().encode(typeof header === 'string' ? header : JSON.stringify(header));
  const bytes = new Uint8Array(8 + json.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(claimedHeaderBytes ?? json.length), true);
  bytes.set(json, 8);
  return bytes;
}

const READ_BYTES_MAX = 100_000;
const f32 = (begin: number, end: number, shape: number[]) => ({ dtype: 'F32', shape, data_offsets: [begin, end] });

describe('a hostile safetensors file is refused after its header', () => {
  const gigabyte = 2 ** 30;
  it.each([
    ['a header of 4 EiB', safetensors({}, 0, 2 ** 62), gigabyte, /header is longer than the file/],
    ['a header of 900 MB that the file could hold', safetensors({}, 0, 9e8), gigabyte, /or than 10000000 bytes/],
    ['a tensor of 10^18 values', safetensors({ a: f32(0, 4, [1e9, 1e9]) }, 4), undefined, /'a' takes 4 bytes/],
    ['a tensor larger than the file', safetensors({ a: f32(0, 4e15, [1e15]) }, 4), undefined, /do not end where/],
    [
      'overlapping tensors',
      safetensors({ a: f32(0, 4, [1]), b: f32(0, 4, [1]) }, 4),
      undefined,
      /'b' overlaps its neighbour/,
    ],
    ['an unknown element type', safetensors({ a: { ...f32(0, 4, [1]), dtype: 'F31' } }, 4), undefined, /type F31/],
    ['integers for weights', safetensors({ a: { ...f32(0, 8, [1]), dtype: 'I64' } }, 8), undefined, /'a' is I64/],
    ['a shape of a thousand axes', safetensors({ a: f32(0, 4, Array(1000).fill(1)) }, 4), undefined, /malformed/],
    ['a file cut in its data', safetensors({ a: f32(0, 4, [1]) }, 3), undefined, /do not end where the file ends/],
    ['an empty file', new Uint8Array(0), undefined, /shorter than its length field/],
  ])('%s', async (_, start, claimed, message) => {
    const source = countingSource(start, claimed);
    await expect(readStateDict(source)).rejects.toThrow(message);
    expect(source.readBytes).toBeLessThan(READ_BYTES_MAX);
  });
});

describe('a torch file', () => {
  it.each([
    ['payload.pt', /names (posix|os)\.system, which would run on loading/],
    ['payload.bin', /a bare pickle, which may run anything/],
    ['program.pt', /a TorchScript program; save its state dict/],
  ])('with anything to run in it is refused: %s', async (name, message) => {
    const attempt = readStateDict(memorySource(name, await fixture(name)));
    await expect(attempt).rejects.toThrow(message);
    await expect(attempt).rejects.toMatchObject({ code: 'UNSUPPORTED' });
    expect(existsSync(path.resolve('covey-payload-ran'))).toBe(false);
  });

  it('that is cut anywhere, or has any one byte changed, is read or refused with a CoveyError, never worse', async () => {
    const bytes = await fixture('state-dict.pt');
    const outcomes = { read: 0, refused: 0 };
    const attempt = async (hostile: Uint8Array) => {
      try {
        const { tensors } = await readStateDict(memorySource('hostile', hostile));
        for (const { values } of tensors.values()) expect(values.byteLength).toBeLessThanOrEqual(2 * bytes.length);
        outcomes.read++;
      } catch (thrown) {
        expect(CoveyError.is(thrown, 'DATA_CORRUPT', 'UNSUPPORTED'), String(thrown)).toBe(true);
        outcomes.refused++;
      }
    };
    for (let length = 0; length < bytes.length; length += 7) await attempt(bytes.subarray(0, length));
    for (let at = 0; at < bytes.length; at += 3) {
      const changed = Uint8Array.from(bytes);
      changed[at]! ^= 0x15;
      await attempt(changed);
    }
    expect(outcomes.refused).toBeGreaterThan(300);
    expect(outcomes.read).toBeGreaterThan(10);
  });

  /** PROTO 2, then the given opcodes. */
  const pickle = (...codes: (number | string)[]) =>
    Uint8Array.from(
      [0x80, 2, ...codes].flatMap((code) => (typeof code === 'string' ? [...Buffer.from(code)] : [code])),
    );
  it.each([
    ['an opcode that calls constructors (INST)', pickle(0x28, 0x69, 'os\nsystem\n', 0x2e), /opcode 0x69/],
    ['NEWOBJ', pickle('ccollections\nOrderedDict\n', 0x29, 0x81, 0x2e), /opcode 0x81/],
    ['builtins', pickle('cbuiltins\neval\n', 0x2e), /names builtins\.eval/],
    ['a name that only begins well', pickle('ctorch._utils\n_rebuild_tensor_v2.__globals__\n', 0x2e), /names torch/],
    ['state for something that is no dict', pickle(0x5d, 0x7d, 0x62, 0x2e), /sets the state/],
    ['a string of 4 GB', pickle(0x58, 255, 255, 255, 255, 'x'), /ends in the middle/],
    ['a memo that is not there', pickle(0x68, 7, 0x2e), /refers to value 7/],
    ['an empty stack', pickle(0x2e), /nothing on the stack/],
    ['no end', pickle(0x5d), /ends in the middle/],
    [
      'a call of an ordered dict with arguments',
      pickle('ccollections\nOrderedDict\n', 0x4e, 0x85, 0x52),
      /makes an object/,
    ],
  ])('pickle with %s', (_, bytes, message) => {
    expect(() => readPickle(bytes, 'x.pt')).toThrow(message);
  });
});
