import { createHash, createHmac } from 'node:crypto';

/**
 * The server's side of AWS Signature Version 4, for header and presigned (query) authentication, written from "Authenticating
 * Requests (AWS Signature Version 4)" of the S3 API reference, not from the client's code. For tests and demonstrations.
 */
export interface SignedRequest {
  readonly method: string;
  /** As received: path and query, still percent-encoded. */
  readonly url: string;
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
}

export interface SignatureCredentials {
  readonly accessKey: string;
  readonly secretKey: string;
  readonly region: string;
}

/** S3's error code and message for a request that is not properly signed. */
export interface SignatureProblem {
  readonly code: string;
  readonly message: string;
}

const SKEW_MS_MAX = 15 * 60_000;
const PRESIGNED_SECONDS_MAX = 604_800;

interface Claim {
  readonly accessKey: string;
  readonly scope: string;
  readonly date: string;
  readonly signedHeaders: readonly string[];
  readonly signature: string;
  readonly payloadHash: string;
  readonly expiresSeconds: number | undefined;
}

/** Undefined where the request carries a valid signature by `credentials`. */
export function verifySignature(
  request: SignedRequest,
  credentials: SignatureCredentials,
  nowMs: number,
): SignatureProblem | undefined {
  const [rawPath = '/', rawQuery = ''] = splitOnce(request.url, '?');
  const query = parseQuery(rawQuery);
  const claim = claimOf(request, query);
  if (!claim) return { code: 'AccessDenied', message: 'The request is not signed' };
  if (claim.accessKey !== credentials.accessKey)
    return { code: 'InvalidAccessKeyId', message: 'The access key does not exist in our records' };
  const expectedScope = `${claim.date.slice(0, 8)}/${credentials.region}/s3/aws4_request`;
  if (claim.scope !== expectedScope) {
    const code =
      claim.expiresSeconds === undefined ? 'AuthorizationHeaderMalformed' : 'AuthorizationQueryParametersError';
    return { code, message: `The credential scope is wrong; expecting ${expectedScope}` };
  }
  const stale = checkTime(claim, nowMs);
  if (stale) return stale;
  const unsigned = Object.keys(request.headers).find(
    (name) => name.startsWith('x-amz-') && !claim.signedHeaders.includes(name),
  );
  if (unsigned !== undefined)
    return {
      code: 'AccessDenied',
      message: `There were headers present in the request which were not signed: ${unsigned}`,
    };
  if (!claim.signedHeaders.includes('host')) return { code: 'AccessDenied', message: 'The host header must be signed' };
  const canonical = canonicalRequest(request, rawPath, query, claim);
  const toSign = ['AWS4-HMAC-SHA256', claim.date, claim.scope, sha256Hex(canonical)].join('\n');
  const signature = hmac(signingKey(credentials, claim.date.slice(0, 8)), toSign).toString('hex');
  if (signature === claim.signature) return undefined;
  return {
    code: 'SignatureDoesNotMatch',
    message: 'The request signature we calculated does not match the signature you provided',
  };
}

function checkTime(claim: Claim, nowMs: number): SignatureProblem | undefined {
  const signedAtMs = parseAmzDate(claim.date);
  if (Number.isNaN(signedAtMs)) return { code: 'AccessDenied', message: 'X-Amz-Date is not a date' };
  if (claim.expiresSeconds === undefined) {
    if (Math.abs(nowMs - signedAtMs) > SKEW_MS_MAX)
      return {
        code: 'RequestTimeTooSkewed',
        message: 'The difference between the request time and the server time is too large',
      };
    return undefined;
  }
  if (!(claim.expiresSeconds >= 1 && claim.expiresSeconds <= PRESIGNED_SECONDS_MAX))
    return { code: 'AuthorizationQueryParametersError', message: 'X-Amz-Expires must be between 1 and 604800 seconds' };
  if (signedAtMs - nowMs > SKEW_MS_MAX)
    return { code: 'RequestTimeTooSkewed', message: 'The request was signed in the future' };
  if (nowMs > signedAtMs + claim.expiresSeconds * 1000) return { code: 'AccessDenied', message: 'Request has expired' };
  return undefined;
}

type Query = readonly (readonly [name: string, value: string])[];

function claimOf(request: SignedRequest, query: Query): Claim | undefined {
  const authorization = header(request, 'authorization');
  if (authorization !== undefined) {
    const match =
      /^AWS4-HMAC-SHA256 +Credential=([^/]+)\/([^,]+), *SignedHeaders=([^,]+), *Signature=([0-9a-f]+)$/.exec(
        authorization,
      );
    const date = header(request, 'x-amz-date');
    if (!match || date === undefined) return undefined;
    const [, accessKey, scope, signedHeaders, signature] = match;
    return {
      accessKey: accessKey!,
      scope: scope!,
      date,
      signedHeaders: signedHeaders!.split(';'),
      signature: signature!,
      payloadHash: header(request, 'x-amz-content-sha256') ?? 'UNSIGNED-PAYLOAD',
      expiresSeconds: undefined,
    };
  }
  const get = (name: string) => query.find(([key]) => key === name)?.[1];
  const credential = get('X-Amz-Credential');
  const signature = get('X-Amz-Signature');
  if (get('X-Amz-Algorithm') !== 'AWS4-HMAC-SHA256' || credential === undefined || signature === undefined)
    return undefined;
  const [accessKey = '', scope = ''] = splitOnce(credential, '/');
  return {
    accessKey,
    scope,
    date: get('X-Amz-Date') ?? '',
    signedHeaders: (get('X-Amz-SignedHeaders') ?? '').split(';'),
    signature,
    payloadHash: 'UNSIGNED-PAYLOAD',
    expiresSeconds: Number(get('X-Amz-Expires')),
  };
}

function canonicalRequest(request: SignedRequest, rawPath: string, query: Query, claim: Claim): string {
  const path = rawPath
    .split('/')
    .map((segment) => encode(decodeURIComponent(segment)))
    .join('/');
  const canonicalQuery = query
    .filter(([name]) => name !== 'X-Amz-Signature')
    .map(([name, value]) => [encode(name), encode(value)] as const)
    .sort(([a, x], [b, y]) => (a < b ? -1 : a > b ? 1 : x < y ? -1 : x > y ? 1 : 0))
    .map(([name, value]) => `${name}=${value}`)
    .join('&');
  const headers = claim.signedHeaders
    .map((name) => `${name}:${(header(request, name) ?? '').trim().replace(/ +/g, ' ')}\n`)
    .join('');
  return [request.method, path, canonicalQuery, headers, claim.signedHeaders.join(';'), claim.payloadHash].join('\n');
}

function signingKey(credentials: SignatureCredentials, day: string): Buffer {
  return hmac(hmac(hmac(hmac(`AWS4${credentials.secretKey}`, day), credentials.region), 's3'), 'aws4_request');
}

const hmac = (key: string | Buffer, text: string) => createHmac('sha256', key).update(text).digest();
const sha256Hex = (text: string) => createHash('sha256').update(text).digest('hex');

function header(request: SignedRequest, name: string): string | undefined {
  const value = request.headers[name];
  return typeof value === 'string' ? value : value?.join(',');
}

/** RFC 3986 with only the unreserved characters kept. */
function encode(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

/** Pairs in their order, decoded. `+` is a plus: S3 does not read it as a space in signatures. */
export function parseQuery(rawQuery: string): [name: string, value: string][] {
  if (rawQuery === '') return [];
  return rawQuery.split('&').map((pair) => {
    const [name = '', value = ''] = splitOnce(pair, '=');
    return [decodeURIComponent(name), decodeURIComponent(value)];
  });
}

function splitOnce(text: string, separator: string): [string, string | undefined] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)];
}

/** 20260102T030405Z → milliseconds, or NaN. */
function parseAmzDate(date: string): number {
  const match = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(date);
  return match ? Date.parse(`${match[1]}-${match[2]}-${match[3]}T${match[4]}:${match[5]}:${match[6]}Z`) : Number.NaN;
}
