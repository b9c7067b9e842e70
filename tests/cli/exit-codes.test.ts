import { describe, expect, it } from 'vitest';
import { exitCodeOf } from '../../cli/exit-codes.ts';
import { CoveyError, type ErrorCode } from '../../common/errors.ts';

describe('exit codes', () => {
  it.each<[ErrorCode, Record<string, unknown>, number]>([
    ['INVALID_ARGUMENT', {}, 2],
    ['CONFIG_INVALID', {}, 3],
    ['UNAVAILABLE', {}, 4],
    ['TIMEOUT', {}, 4],
    ['UNSUPPORTED', {}, 5],
    ['UNAUTHENTICATED', {}, 5],
    ['PERMISSION_DENIED', {}, 5],
    ['NOT_FOUND', { command: 'nats-server' }, 5],
    ['NOT_FOUND', { bucket: 'covey' }, 5],
    ['NOT_FOUND', { run: 'x' }, 1],
    ['CANCELLED', {}, 130],
    ['INTERNAL', {}, 1],
    ['DATA_CORRUPT', {}, 1],
  ])('maps %s %o to %i', (code, fields, expected) => {
    expect(exitCodeOf(new CoveyError(code, 'x', { fields }))).toBe(expected);
  });
});
