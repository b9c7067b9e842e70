import { type RunConfig, runConfigSchema } from '../../common/config/run-config.ts';
import { CoveyError } from '../../common/errors.ts';
import type { ObjectStore } from '../../common/objectstore/object-store.ts';

/** The config that a run's store keeps. @throws CoveyError NOT_FOUND, DATA_CORRUPT */
export async function readRunConfig(store: ObjectStore, name: string, signal: AbortSignal): Promise<RunConfig> {
  const key = `runs/${name}/config.json`;
  try {
    const { bytes } = await store.get(key, { signal });
    return parseRunConfig(Buffer.from(bytes).toString('utf8'), key);
  } catch (thrown) {
    if (!CoveyError.is(thrown, 'NOT_FOUND')) throw thrown;
    const fields = { store: store.url, name };
    throw new CoveyError('NOT_FOUND', `Cannot find run ${name}: ${store.url} has no ${key}`, { cause: thrown, fields });
  }
}

/** @param what what the text is, for the message. @throws CoveyError DATA_CORRUPT */
export function parseRunConfig(text: string, what: string): RunConfig {
  const parsed = runConfigSchema.safeParse(JSON.parse(text));
  if (!parsed.success) throw new CoveyError('DATA_CORRUPT', `Cannot read ${what}: ${parsed.error.message}`);
  return parsed.data;
}
