import { CoveyError } from '../errors.ts';

/** Where an S3 server is and who we are to it. */
export interface S3Settings {
  /** Origin without path, e.g. `http://127.0.0.1:9000`. */
  readonly endpoint: string;
  readonly region: string;
  readonly accessKey: string;
  readonly secretKey: string;
  readonly sessionToken?: string;
  /** `http://host/bucket/key` instead of `http://bucket.host/key`. Default true: every self-hosted server takes it. */
  readonly pathStyle?: boolean;
}

type Env = Readonly<Record<string, string | undefined>>;

/**
 * Settings from COVEY_S3_ENDPOINT, COVEY_S3_REGION, COVEY_S3_ACCESS_KEY, COVEY_S3_SECRET_KEY, COVEY_S3_SESSION_TOKEN; each falls
 * back to the AWS name (AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, AWS_REGION or AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID,
 * AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN). Without an endpoint: AWS in that region. Throws UNAUTHENTICATED without keys.
 */
export function s3SettingsFromEnv(env: Env, overrides: Partial<S3Settings> = {}): S3Settings {
  const read = (...names: readonly string[]) =>
    names.map((name) => env[name]).find((value) => value !== undefined && value !== '');
  const region = overrides.region ?? read('COVEY_S3_REGION', 'AWS_REGION', 'AWS_DEFAULT_REGION') ?? 'us-east-1';
  const accessKey = overrides.accessKey ?? read('COVEY_S3_ACCESS_KEY', 'AWS_ACCESS_KEY_ID');
  const secretKey = overrides.secretKey ?? read('COVEY_S3_SECRET_KEY', 'AWS_SECRET_ACCESS_KEY');
  if (accessKey === undefined || secretKey === undefined) {
    throw new CoveyError(
      'UNAUTHENTICATED',
      `Cannot open an S3 store: ${accessKey === undefined ? 'access key' : 'secret key'} missing: set COVEY_S3_ACCESS_KEY and COVEY_S3_SECRET_KEY (or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)`,
    );
  }
  const sessionToken = overrides.sessionToken ?? read('COVEY_S3_SESSION_TOKEN', 'AWS_SESSION_TOKEN');
  const endpoint = overrides.endpoint ?? read('COVEY_S3_ENDPOINT', 'AWS_ENDPOINT_URL_S3', 'AWS_ENDPOINT_URL');
  return {
    endpoint: endpoint === undefined ? `https://s3.${region}.amazonaws.com` : endpointOrigin(endpoint),
    region,
    accessKey,
    secretKey,
    pathStyle: overrides.pathStyle ?? true,
    ...(sessionToken === undefined ? {} : { sessionToken }),
  };
}

function endpointOrigin(endpoint: string): string {
  const withScheme = endpoint.includes('://') ? endpoint : `http://${endpoint}`;
  const url = URL.canParse(withScheme) ? new URL(withScheme) : undefined;
  if (
    !url ||
    !['http:', 'https:'].includes(url.protocol) ||
    url.pathname !== '/' ||
    url.search !== '' ||
    url.username !== ''
  ) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot use S3 endpoint: must be http(s)://host[:port] without path or credentials: ${withScheme.replace(/\/\/[^@/]*@/, '//[redacted]@')}`,
    );
  }
  return url.origin;
}

/** Bucket and key prefix (without slashes at its ends; may be empty) of `s3://bucket/prefix`. */
export function parseS3Url(url: string): { readonly bucket: string; readonly prefix: string } {
  const match = /^s3:\/\/([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:\/(.*))?$/.exec(url);
  const prefix = (match?.[2] ?? '').replace(/^\/+|\/+$/g, '');
  if (!match || prefix.split('/').some((segment) => segment === '.' || segment === '..') || prefix.includes('//')) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot open object store: not an S3 URL: ${url.replace(/\/\/[^@/]*@/, '//[redacted]@')}; write s3://bucket/prefix with a bucket of 3 to 63 lower-case letters, digits, dots and dashes`,
    );
  }
  return { bucket: match[1]!, prefix };
}
