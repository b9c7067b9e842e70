import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatBytes, formatRate } from '../../common/bytes.ts';
import { formatDuration } from '../../common/duration.ts';

describe('formatting for people', () => {
  it.each([
    [0, '0 B'],
    [1023, '1023 B'],
    [1024, '1 KiB'],
    [1536, '1.5 KiB'],
    [1024 * 1024 - 1, '1 MiB'],
    [20 * 2 ** 30, '20 GiB'],
    [-2048, '-2 KiB'],
  ])('writes %d bytes as %s', (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text);
  });

  it.each([
    [0, '0ms'],
    [250, '250ms'],
    [1500, '1.5s'],
    [9999, '10s'],
    [90_500, '1m 31s'],
    [3_600_000, '1h'],
    [3_660_000, '1h 1m'],
    [200_000_000, '2d 7h'],
    [-1500, '-1.5s'],
    [Number.NaN, '?'],
  ])('writes %d ms as %s', (durationMs, text) => {
    expect(formatDuration(durationMs)).toBe(text);
  });

  it('writes rates with decimal prefixes', () => {
    expect([0.5, 12.34, 1536, 2e6].map((rate) => formatRate(rate, 'samples'))).toEqual([
      '0.5 samples/s',
      '12.3 samples/s',
      '1.54 ksamples/s',
      '2 Msamples/s',
    ]);
  });

  it('never writes a value that belongs to the next unit', () => {
    fc.assert(
      fc.property(fc.nat({ max: 2 ** 31 - 1 }), (value) => {
        expect(Number.parseFloat(formatBytes(value * 1000))).toBeLessThan(1024);
        expect(formatDuration(value)).not.toMatch(/\b(1000ms|60s|60m|24h)/);
      }),
    );
  });
});
