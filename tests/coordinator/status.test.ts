import grpc from '@grpc/grpc-js';
import { describe, expect, it } from 'vitest';
import { CoveyError, type ErrorCode } from '../../common/errors.ts';
import { fromStatus, toStatus } from '../../proto/status.ts';

describe('errors over gRPC', () => {
  const codes: ErrorCode[] = [
    'STALE_GENERATION',
    'CONFIG_INVALID',
    'NON_FINITE',
    'DATA_CORRUPT',
    'INTERNAL',
    'TIMEOUT',
  ];
  it.each(codes)('carries code %s, message and fields across', (code) => {
    const sent = new CoveyError(code, 'Cannot step: generation is 3', { fields: { generation: 3, member: 'w-1' } });
    const status = toStatus(sent);
    const service = Object.assign(new Error('9'), {
      code: status.code,
      details: status.details,
      metadata: status.metadata,
    });
    const received = fromStatus(service, 'CommitStep', '127.0.0.1:1');
    expect(received.code).toBe(code);
    expect(received.message).toBe(sent.message);
    expect(received.fields).toEqual({ generation: '3', member: 'w-1' });
  });

  it('maps a bare status by its number and names call and address', () => {
    const bare = Object.assign(new Error('14'), {
      code: grpc.status.UNAVAILABLE,
      details: 'refused',
      metadata: new grpc.Metadata(),
    });
    const received = fromStatus(bare, 'Join', '127.0.0.1:1');
    expect(received.code).toBe('UNAVAILABLE');
    expect(received.message).toContain('Join at 127.0.0.1:1');
  });

  it('drops fields that would overflow the trailer limit but keeps the message', () => {
    const status = toStatus(new CoveyError('INTERNAL', 'broken', { fields: { small: 1, huge: 'x'.repeat(100_000) } }));
    expect(status.metadata.toHttp2Headers()['grpc-status-details-bin']!.toString().length).toBeLessThan(8192);
    expect(status.details).toBe('broken');
  });
});
