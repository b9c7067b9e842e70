import type { ObjectStore } from '../common/objectstore/object-store.ts';
import { openObjectStore } from '../common/objectstore/open.ts';
import type { CommandContext } from './context.ts';
import { storeUrl } from './local-paths.ts';

/** Opens stores by URL, or folders of this machine, with the process's environment (COVEY_S3_*), for the parts that are handed a way to open one. */
export function storeOpener(context: Pick<CommandContext, 'env' | 'logger' | 'clock'>): (url: string) => ObjectStore {
  const { env, logger, clock } = context;
  return (url) => openObjectStore(storeUrl(url), { env, logger, clock });
}

/** Opens a store, hands it over, closes it on every path. */
export async function withStore<T>(
  context: Pick<CommandContext, 'env' | 'logger' | 'clock'>,
  url: string,
  work: (store: ObjectStore) => Promise<T>,
): Promise<T> {
  const store = storeOpener(context)(url);
  try {
    return await work(store);
  } finally {
    await store.close();
  }
}
