import { CoveyError } from '../errors.ts';
import type { CallOptions, ObjectStore } from './object-store.ts';

const ROUNDS = 3;

/**
 * Finds out whether the store's conditional writes hold: some S3 servers ignore If-None-Match or If-Match, or check them outside
 * a lock. Two writers race, first to create an object, then to replace it from the same etag; each time exactly one must win, and
 * the object must hold the winner's body. Throws UNSUPPORTED otherwise. Leaves nothing behind. About 20 requests.
 */
export async function probeConditionalWrites(store: ObjectStore, options: CallOptions = {}): Promise<void> {
  for (let round = 0; round < ROUNDS; round++) {
    const key = `probe/${crypto.randomUUID()}`;
    try {
      const created = await race(store, key, { ...options, ifAbsent: true });
      await race(store, key, { ...options, ifMatch: created });
      await expectLoss(store, key, { ...options, ifMatch: created });
      await store.delete(key, options);
      await expectLoss(store, key, { ...options, ifMatch: created });
    } finally {
      await store.delete(key, options);
    }
  }
}

type Conditions = CallOptions & { readonly ifAbsent?: boolean; readonly ifMatch?: string };

/** Etag of the one winner. */
async function race(store: ObjectStore, key: string, conditions: Conditions): Promise<string> {
  const bodies = [Buffer.from(`one ${crypto.randomUUID()}`), Buffer.from(`two ${crypto.randomUUID()}`)];
  const outcomes = await Promise.all(bodies.map((body) => tryPut(store, key, body, conditions)));
  const winners = outcomes.flatMap((etag, index) => (etag === undefined ? [] : [{ etag, index }]));
  const [winner] = winners;
  if (winners.length !== 1 || !winner) throw unsafe(store, `${winners.length} of 2 racing writers won`, conditions);
  const { bytes, etag } = await store.get(key, conditions.signal ? { signal: conditions.signal } : {});
  if (Buffer.compare(bytes, bodies[winner.index]!) !== 0)
    throw unsafe(store, 'the loser overwrote the winner', conditions);
  return etag;
}

async function expectLoss(store: ObjectStore, key: string, conditions: Conditions): Promise<void> {
  const etag = await tryPut(store, key, Buffer.from('late'), conditions);
  if (etag !== undefined) throw unsafe(store, 'a write with an outdated etag succeeded', conditions);
}

async function tryPut(
  store: ObjectStore,
  key: string,
  body: Uint8Array,
  conditions: Conditions,
): Promise<string | undefined> {
  try {
    return (await store.put(key, body, conditions)).etag;
  } catch (error) {
    if (CoveyError.is(error, 'PRECONDITION_FAILED')) return undefined;
    throw error;
  }
}

function unsafe(store: ObjectStore, seen: string, { ifAbsent }: Conditions): CoveyError {
  const header = ifAbsent ? 'If-None-Match' : 'If-Match';
  return new CoveyError(
    'UNSUPPORTED',
    `Cannot keep a run's HEAD in ${store.url}: its conditional writes (${header}) do not hold: ${seen}; use a server with atomic conditional PUT (AWS S3, MinIO, SeaweedFS) or a file store`,
    { fields: { store: store.url, header } },
  );
}
