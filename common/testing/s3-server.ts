import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { decodeXML } from 'entities';
import { XMLParser } from 'fast-xml-parser';
import { type Clock, systemClock } from '../clock.ts';
import { escapeXml, unquoteEtag } from '../objectstore/s3-xml.ts';
import { RandomStream } from '../random.ts';
import * as state from './s3-buckets.ts';
import { drawFault, type FaultKind, NO_FAULTS, type S3FaultRates, sendBody } from './s3-faults.ts';
import { parseQuery, type SignatureCredentials, verifySignature } from './s3-signature.ts';

/**
 * An S3 server in memory, over real HTTP on 127.0.0.1, with faults on demand. For tests and demonstrations only: nothing is
 * written to disk and everything is held in memory. It checks every signature and follows S3's rules for ranges, conditions,
 * multipart uploads and listings. Path-style addresses only.
 */
export interface S3ServerOptions extends Partial<SignatureCredentials> {
  /** 0 (default) takes a free port. */
  readonly port?: number;
  /** Buckets that exist from the start. */
  readonly buckets?: readonly string[];
  /** Of the faults. Default 0. */
  readonly seed?: number;
  /** Smallest part except the last, bytes. Default 5 MiB, as S3 has it. */
  readonly partBytesMin?: number;
}

interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly bucketName: string;
  readonly key: string;
  readonly query: ReadonlyMap<string, string>;
  readonly body: Uint8Array;
  readonly fault: FaultKind | undefined;
}

const BODY_BYTES_MAX = 512 * 2 ** 20;
const LIST_KEYS_MAX = 1000;
/** Reads and replaces the faults over HTTP, for servers that run as their own process. */
const FAULTS_PATH = '/-/faults';

const completeParser = new XMLParser({
  parseTagValue: false,
  processEntities: false,
  isArray: (name) => name === 'Part',
});

export class S3TestServer {
  readonly credentials: SignatureCredentials;
  readonly buckets = new Map<string, state.Bucket>();
  /** Requests so far by method, faults included. */
  readonly requestCounts = new Map<string, number>();
  /** Faults so far by kind. */
  readonly faultCounts = new Map<string, number>();
  faults: S3FaultRates = NO_FAULTS;
  readonly #options: S3ServerOptions;
  readonly #random: RandomStream;
  readonly #clock: Clock;
  readonly #server: Server;
  #uploadCount = 0;

  constructor(options: S3ServerOptions = {}, modules: { readonly clock?: Clock } = {}) {
    this.credentials = {
      accessKey: options.accessKey ?? 'test-access-key',
      secretKey: options.secretKey ?? 'test-secret-key',
      region: options.region ?? 'us-east-1',
    };
    this.#options = options;
    this.#random = new RandomStream('s3-faults', options.seed ?? 0);
    this.#clock = modules.clock ?? systemClock;
    for (const name of options.buckets ?? []) this.buckets.set(name, state.emptyBucket());
    this.#server = createServer((request, response) => {
      this.#handle(request, response).catch(() => response.destroy());
    });
  }

  /** http://127.0.0.1:PORT, once started. */
  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** What `openObjectStore` needs to find this server, as environment variables. */
  get env(): Readonly<Record<string, string>> {
    const { accessKey, secretKey, region } = this.credentials;
    return {
      COVEY_S3_ENDPOINT: this.url,
      COVEY_S3_ACCESS_KEY: accessKey,
      COVEY_S3_SECRET_KEY: secretKey,
      COVEY_S3_REGION: region,
    };
  }

  async start(): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(this.#options.port ?? 0, '127.0.0.1', () => resolve());
    });
  }

  /** Drops every connection. The objects stay readable through `buckets`. */
  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const method = request.method ?? 'GET';
    const [rawPath = '/', rawQuery = ''] = (request.url ?? '/').split('?', 2);
    const body = await readBody(request);
    if (rawPath === FAULTS_PATH) {
      this.#handleFaults(method, body, response);
      return;
    }
    this.requestCounts.set(method, (this.requestCounts.get(method) ?? 0) + 1);
    const [, bucketName = '', ...keyParts] = rawPath.split('/');
    const key = decodeURIComponent(keyParts.join('/'));
    const query = new Map(parseQuery(rawQuery));
    const fault = drawFault(this.faults, method, key, this.#random);
    if (fault) this.faultCounts.set(fault, (this.faultCounts.get(fault) ?? 0) + 1);
    if (this.faults.latencyMs > 0) await this.#clock.sleep(this.faults.latencyMs);
    const exchange = { request, response, bucketName: decodeURIComponent(bucketName), key, query, body, fault };
    try {
      if (fault === 'unavailable') throw new state.S3Fault(503, 'SlowDown', 'Please reduce your request rate.');
      this.#authenticate(exchange);
      await this.#route(exchange);
    } catch (thrown) {
      if (!(thrown instanceof state.S3Fault)) throw thrown;
      sendError(exchange, thrown);
    }
  }

  #handleFaults(method: string, body: Uint8Array, response: ServerResponse): void {
    if (method === 'PUT')
      this.faults = { ...NO_FAULTS, ...(JSON.parse(Buffer.from(body).toString('utf8')) as Partial<S3FaultRates>) };
    response.setHeader('content-type', 'application/json');
    response.end(
      JSON.stringify({
        faults: this.faults,
        requestCounts: Object.fromEntries(this.requestCounts),
        faultCounts: Object.fromEntries(this.faultCounts),
      }),
    );
  }

  #authenticate({ request, body }: Exchange): void {
    const { method = 'GET', url = '/', headers } = request;
    const problem = verifySignature({ method, url, headers }, this.credentials, this.#clock.now());
    if (problem)
      throw new state.S3Fault(problem.code.startsWith('Authorization') ? 400 : 403, problem.code, problem.message);
    const sha256 = headers['x-amz-content-sha256'];
    if (
      typeof sha256 === 'string' &&
      /^[0-9a-f]{64}$/.test(sha256) &&
      createHash('sha256').update(body).digest('hex') !== sha256
    ) {
      throw new state.S3Fault(
        400,
        'XAmzContentSHA256Mismatch',
        "The provided 'x-amz-content-sha256' header does not match what was computed.",
      );
    }
    if (typeof sha256 === 'string' && sha256.startsWith('STREAMING-'))
      throw new state.S3Fault(501, 'NotImplemented', 'Chunked signatures are not implemented');
    const md5 = headers['content-md5'];
    if (md5 !== undefined && createHash('md5').update(body).digest('base64') !== md5) {
      throw new state.S3Fault(400, 'BadDigest', 'The Content-MD5 you specified did not match what we received.');
    }
  }

  async #route(exchange: Exchange): Promise<void> {
    const method = exchange.request.method ?? 'GET';
    if (exchange.bucketName === '')
      throw new state.S3Fault(501, 'NotImplemented', 'Listing buckets is not implemented');
    if (exchange.key === '' && method === 'PUT') {
      if (!this.buckets.has(exchange.bucketName)) this.buckets.set(exchange.bucketName, state.emptyBucket());
      send(exchange, 200, {});
      return;
    }
    const bucket = this.buckets.get(exchange.bucketName);
    if (!bucket) throw new state.S3Fault(404, 'NoSuchBucket', 'The specified bucket does not exist');
    if (exchange.key === '') {
      this.#routeBucket(exchange, bucket, method);
      return;
    }
    switch (method) {
      case 'GET':
      case 'HEAD':
        return await this.#getObject(exchange, bucket);
      case 'PUT': {
        this.#put(exchange, bucket);
        return;
      }
      case 'POST': {
        this.#post(exchange, bucket);
        return;
      }
      case 'DELETE':
        if (exchange.query.has('uploadId')) state.abortUpload(bucket, exchange.key, exchange.query.get('uploadId')!);
        else bucket.objects.delete(exchange.key);
        send(exchange, 204, {});
        return;
      default:
        throw new state.S3Fault(405, 'MethodNotAllowed', 'The specified method is not allowed against this resource.');
    }
  }

  #routeBucket(exchange: Exchange, bucket: state.Bucket, method: string): void {
    const { query } = exchange;
    if (method === 'HEAD') {
      send(exchange, 200, {});
      return;
    }
    if (method === 'GET' && query.has('location')) {
      sendXml(exchange, `<LocationConstraint>${this.credentials.region}</LocationConstraint>`);
      return;
    }
    if (method === 'GET' && query.get('list-type') === '2') {
      sendXml(exchange, listXml(exchange.bucketName, bucket, query));
      return;
    }
    throw new state.S3Fault(501, 'NotImplemented', 'This bucket operation is not implemented');
  }

  async #getObject(exchange: Exchange, bucket: state.Bucket): Promise<void> {
    const { request, response, key, fault } = exchange;
    const object = state.getObject(bucket, key);
    const { ifMatch, ifNoneMatch } = conditionsOf(request);
    if (ifMatch !== undefined && ifMatch !== object.etag)
      throw new state.S3Fault(
        412,
        'PreconditionFailed',
        'At least one of the pre-conditions you specified did not hold',
      );
    if (ifNoneMatch === '*' || ifNoneMatch === object.etag) {
      send(exchange, 304, { etag: `"${object.etag}"` });
      return;
    }
    const range = state.parseRange(request.headers.range, object.bytes.length);
    const bytes = range ? object.bytes.subarray(range.start, range.end + 1) : object.bytes;
    const headers: Record<string, string> = {
      etag: `"${object.etag}"`,
      'last-modified': new Date(object.modifiedAtMs).toUTCString(),
      'content-type': 'application/octet-stream',
      'content-length': String(bytes.length),
      'accept-ranges': 'bytes',
    };
    if (range) headers['content-range'] = `bytes ${range.start}-${range.end}/${object.bytes.length}`;
    if (fault === 'lostAnswer') {
      response.socket?.resetAndDestroy();
      return;
    }
    response.writeHead(range ? 206 : 200, headers);
    if (request.method === 'HEAD') {
      response.end();
      return;
    }
    await sendBody(response, bytes, fault, { rates: this.faults, random: this.#random, clock: this.#clock });
  }

  #put(exchange: Exchange, bucket: state.Bucket): void {
    const { query, key, body, request } = exchange;
    if (request.headers['content-length'] === undefined)
      throw new state.S3Fault(411, 'MissingContentLength', 'You must provide the Content-Length HTTP header.');
    const uploadId = query.get('uploadId');
    const etag =
      uploadId === undefined
        ? state.putObject(bucket, key, body, conditionsOf(request), this.#clock.now()).etag
        : state.putPart(bucket, key, uploadId, Number(query.get('partNumber')), body);
    send(exchange, 200, { etag: `"${etag}"` });
  }

  #post(exchange: Exchange, bucket: state.Bucket): void {
    const { query, key, bucketName } = exchange;
    if (query.has('uploads')) {
      const uploadId = `upload-${++this.#uploadCount}`;
      state.startUpload(bucket, key, uploadId);
      const names = `<Bucket>${escapeXml(bucketName)}</Bucket><Key>${escapeXml(key)}</Key>`;
      sendXml(
        exchange,
        `<InitiateMultipartUploadResult>${names}<UploadId>${uploadId}</UploadId></InitiateMultipartUploadResult>`,
      );
      return;
    }
    const uploadId = query.get('uploadId');
    if (uploadId === undefined)
      throw new state.S3Fault(501, 'NotImplemented', 'This object operation is not implemented');
    const object = state.completeUpload(bucket, key, uploadId, parseCompletion(exchange.body), {
      conditions: conditionsOf(exchange.request),
      partBytesMin: this.#options.partBytesMin ?? 5 * 2 ** 20,
      nowMs: this.#clock.now(),
    });
    sendXml(
      exchange,
      `<CompleteMultipartUploadResult><Key>${escapeXml(key)}</Key><ETag>&quot;${object.etag}&quot;</ETag></CompleteMultipartUploadResult>`,
    );
  }
}

/** Starts a server; the caller stops it. */
export async function startS3Server(
  options: S3ServerOptions = {},
  modules: { readonly clock?: Clock } = {},
): Promise<S3TestServer> {
  const server = new S3TestServer(options, modules);
  await server.start();
  return server;
}

async function readBody(request: IncomingMessage): Promise<Uint8Array> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX)
      throw new state.S3Fault(400, 'EntityTooLarge', 'Your proposed upload exceeds the maximum allowed size');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function conditionsOf(request: IncomingMessage): state.Conditions {
  const read = (name: string) => {
    const value = request.headers[name];
    return typeof value === 'string' ? unquoteEtag(value) : undefined;
  };
  return { ifMatch: read('if-match'), ifNoneMatch: read('if-none-match') };
}

function parseCompletion(body: Uint8Array): state.CompletedPart[] {
  const parsed = completeParser.parse(Buffer.from(body).toString('utf8')) as {
    CompleteMultipartUpload?: { Part?: { PartNumber: string; ETag: string }[] };
  };
  const parts = parsed.CompleteMultipartUpload?.Part;
  if (!parts) throw new state.S3Fault(400, 'MalformedXML', 'The XML you provided was not well-formed');
  return parts.map((part) => ({ partNumber: Number(part.PartNumber), etag: unquoteEtag(decodeXML(part.ETag)) }));
}

function listXml(bucketName: string, bucket: state.Bucket, query: ReadonlyMap<string, string>): string {
  const prefix = query.get('prefix') ?? '';
  const token = query.get('continuation-token');
  const after =
    token === undefined ? (query.get('start-after') ?? '') : Buffer.from(token, 'base64url').toString('utf8');
  const keysMax = Math.min(LIST_KEYS_MAX, Number(query.get('max-keys') ?? LIST_KEYS_MAX));
  const { keys, truncated } = state.listObjects(bucket, { prefix, after, keysMax });
  const contents = keys.map((key) => {
    const { bytes, etag, modifiedAtMs } = bucket.objects.get(key)!;
    return `<Contents><Key>${escapeXml(key)}</Key><LastModified>${new Date(modifiedAtMs).toISOString()}</LastModified><ETag>&quot;${etag}&quot;</ETag><Size>${bytes.length}</Size><StorageClass>STANDARD</StorageClass></Contents>`;
  });
  const next = truncated
    ? `<NextContinuationToken>${Buffer.from(keys.at(-1) ?? '').toString('base64url')}</NextContinuationToken>`
    : '';
  return `<ListBucketResult><Name>${escapeXml(bucketName)}</Name><Prefix>${escapeXml(prefix)}</Prefix><KeyCount>${keys.length}</KeyCount><MaxKeys>${keysMax}</MaxKeys><IsTruncated>${truncated}</IsTruncated>${next}${contents.join('')}</ListBucketResult>`;
}

function send(exchange: Exchange, status: number, headers: Readonly<Record<string, string>>, body = ''): void {
  if (exchange.fault === 'lostAnswer') {
    exchange.response.socket?.resetAndDestroy();
    return;
  }
  exchange.response.writeHead(status, { ...headers, 'content-length': String(Buffer.byteLength(body)) });
  exchange.response.end(exchange.request.method === 'HEAD' ? '' : body);
}

function sendXml(exchange: Exchange, xml: string): void {
  send(exchange, 200, { 'content-type': 'application/xml' }, `<?xml version="1.0" encoding="UTF-8"?>\n${xml}`);
}

function sendError(exchange: Exchange, { status, code, message }: state.S3Fault): void {
  const xml = `<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>${code}</Code><Message>${escapeXml(message)}</Message><Key>${escapeXml(exchange.key)}</Key></Error>`;
  const headers = { 'content-type': 'application/xml', 'content-length': String(Buffer.byteLength(xml)) };
  exchange.response.writeHead(status, headers);
  exchange.response.end(exchange.request.method === 'HEAD' ? '' : xml);
}
