import type { ServerResponse } from 'node:http';
import type { Clock } from '../clock.ts';
import type { RandomStream } from '../random.ts';

/** What the test server does wrong, as shares of requests (0 to 1). Everything is drawn from one seeded stream. */
export interface S3FaultRates {
  /** Answers 503 SlowDown without doing anything. */
  readonly unavailable: number;
  /** Does the work, then resets the connection without an answer. */
  readonly lostAnswer: number;
  /** Resets the connection in the middle of a GET's body. */
  readonly reset: number;
  /** Ends the connection cleanly in the middle of a GET's body, short of its Content-Length. */
  readonly truncated: number;
  /** Turns one bit of a GET's body. */
  readonly flipped: number;
  /** Sends half of a GET's body, then nothing for `stallMs`. */
  readonly stalled: number;
  readonly stallMs: number;
  /** Added before every answer. */
  readonly latencyMs: number;
  /** Body bytes before a reset or cut. Negative: half of the body. */
  readonly faultAfterBytes: number;
  /** Faults touch only these HTTP methods; empty: all. */
  readonly methods: readonly string[];
  /** Faults touch only keys that contain this text. */
  readonly keyPart: string;
}

export const NO_FAULTS: S3FaultRates = {
  unavailable: 0,
  lostAnswer: 0,
  reset: 0,
  truncated: 0,
  flipped: 0,
  stalled: 0,
  stallMs: 60_000,
  latencyMs: 0,
  faultAfterBytes: -1,
  methods: [],
  keyPart: '',
};

export type FaultKind = 'unavailable' | 'lostAnswer' | 'reset' | 'truncated' | 'flipped' | 'stalled';

/** Draws what goes wrong with one request; at most one thing. */
export function drawFault(
  rates: S3FaultRates,
  method: string,
  key: string,
  random: RandomStream,
): FaultKind | undefined {
  if (rates.methods.length > 0 && !rates.methods.includes(method)) return undefined;
  if (!key.includes(rates.keyPart)) return undefined;
  const kinds: readonly FaultKind[] =
    method === 'GET'
      ? ['unavailable', 'lostAnswer', 'reset', 'truncated', 'flipped', 'stalled']
      : ['unavailable', 'lostAnswer'];
  let draw = random.uniform();
  for (const kind of kinds) {
    if (draw < rates[kind]) return kind;
    draw -= rates[kind];
  }
  return undefined;
}

/** Sends a GET's body, spoilt as the fault says. The head must have been written with the true Content-Length. */
export async function sendBody(
  response: ServerResponse,
  body: Uint8Array,
  fault: FaultKind | undefined,
  options: { readonly rates: S3FaultRates; readonly random: RandomStream; readonly clock: Clock },
): Promise<void> {
  const { rates, random, clock } = options;
  const cut = rates.faultAfterBytes < 0 ? Math.floor(body.length / 2) : Math.min(rates.faultAfterBytes, body.length);
  switch (fault) {
    case 'reset':
      // Only what has been flushed reaches the client before the reset.
      await write(response, body.subarray(0, cut));
      await clock.sleep(5);
      response.socket?.resetAndDestroy();
      return;
    case 'truncated':
      await write(response, body.subarray(0, cut));
      response.socket?.end();
      return;
    case 'stalled':
      await write(response, body.subarray(0, cut));
      await Promise.race([clock.sleep(rates.stallMs), new Promise((resolve) => response.once('close', resolve))]);
      if (!response.destroyed) response.end(body.subarray(cut));
      return;
    case 'flipped': {
      const spoilt = Uint8Array.from(body);
      const at = random.integer(spoilt.length);
      if (spoilt.length > 0) spoilt[at]! ^= 1 << random.integer(8);
      response.end(spoilt);
      return;
    }
    default:
      response.end(body);
  }
}

function write(response: ServerResponse, bytes: Uint8Array): Promise<void> {
  // flushHeaders: with a fault after 0 bytes the head must still go out.
  response.flushHeaders();
  return new Promise((resolve) => (bytes.length === 0 ? resolve() : response.write(bytes, () => resolve())));
}
