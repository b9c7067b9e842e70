import { decodeXML } from 'entities';
import { XMLParser } from 'fast-xml-parser';
import { CoveyError } from '../errors.ts';
import type { StoredObject } from './object-store.ts';

// Values stay text: an etag or key that looks like a number must not become one. Entities are decoded below: the parser leaves
// numeric ones (&#34;, which Go servers write around every etag) as they are, and limits how many a page may hold.
const parser = new XMLParser({
  ignoreAttributes: true,
  parseTagValue: false,
  trimValues: false,
  processEntities: false,
  isArray: (name) => name === 'Contents',
});

type XmlNode = Readonly<Record<string, unknown>>;

export interface S3ErrorBody {
  readonly code: string;
  readonly message: string;
}

export interface ListPage {
  readonly objects: readonly StoredObject[];
  /** Undefined on the last page. */
  readonly continuationToken: string | undefined;
}

function root(xml: string, name: string): XmlNode | undefined {
  try {
    const node = (parser.parse(xml) as XmlNode)[name];
    return typeof node === 'object' && node !== null ? (node as XmlNode) : undefined;
  } catch {
    // Proxies answer with HTML or nothing; the status alone then decides.
    return undefined;
  }
}

function text(node: XmlNode, name: string): string | undefined {
  const value = node[name];
  return typeof value === 'string' ? decodeXML(value) : undefined;
}

/** The `<Error>` of a response body, or undefined where it is none. */
export function parseS3Error(xml: string): S3ErrorBody | undefined {
  const error = root(xml, 'Error');
  return error && { code: text(error, 'Code') ?? 'Unknown', message: text(error, 'Message') ?? '' };
}

/** One page of ListObjectsV2. Keys come back whole, with the store's prefix. Throws DATA_CORRUPT for anything else. */
export function parseListPage(xml: string): ListPage {
  const result = parseOrThrow(xml, 'ListBucketResult');
  const contents = (Array.isArray(result['Contents']) ? result['Contents'] : []) as XmlNode[];
  const objects = contents.map((item) => ({
    key: required(item, 'Key', xml),
    sizeBytes: Number(required(item, 'Size', xml)),
    etag: unquoteEtag(text(item, 'ETag') ?? ''),
    modifiedAtMs: Date.parse(text(item, 'LastModified') ?? '') || 0,
  }));
  const truncated = text(result, 'IsTruncated') === 'true';
  return { objects, continuationToken: truncated ? required(result, 'NextContinuationToken', xml) : undefined };
}

/** UploadId of an InitiateMultipartUploadResult. */
export function parseUploadId(xml: string): string {
  return required(parseOrThrow(xml, 'InitiateMultipartUploadResult'), 'UploadId', xml);
}

/** ETag of a CompleteMultipartUploadResult. */
export function parseCompletedEtag(xml: string): string {
  return unquoteEtag(required(parseOrThrow(xml, 'CompleteMultipartUploadResult'), 'ETag', xml));
}

/** Body of CompleteMultipartUpload; part numbers count from 1. */
export function completeUploadXml(etags: readonly string[]): string {
  const parts = etags.map(
    (etag, index) => `<Part><PartNumber>${index + 1}</PartNumber><ETag>"${escapeXml(etag)}"</ETag></Part>`,
  );
  return `<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">${parts.join('')}</CompleteMultipartUpload>`;
}

export function escapeXml(value: string): string {
  return value.replace(/[<>&'"]/g, (character) => `&#${character.charCodeAt(0)};`);
}

/** Without the quotes of the header form, and without a weak mark. */
export function unquoteEtag(etag: string): string {
  return etag.replace(/^W\//, '').replace(/^"|"$/g, '');
}

function parseOrThrow(xml: string, name: string): XmlNode {
  const node = root(xml, name);
  if (node) return node;
  throw new CoveyError('DATA_CORRUPT', `Cannot read the server's answer: no <${name}>: ${xml.slice(0, 120)}`, {
    fields: { transient: true, reason: 'corrupt' },
  });
}

function required(node: XmlNode, name: string, xml: string): string {
  const value = text(node, name);
  if (value !== undefined) return value;
  throw new CoveyError('DATA_CORRUPT', `Cannot read the server's answer: no <${name}>: ${xml.slice(0, 120)}`, {
    fields: { transient: true, reason: 'corrupt' },
  });
}
