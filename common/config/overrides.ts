import { parse } from 'yaml';
import type { ConfigProblem, Origin } from './problems.ts';
import { isTextAt, keysAt, plainKey } from './schema-keys.ts';

/** A value from outside the file, for one path. `undefined` takes the key out, so that its default holds. */
export interface Override {
  readonly path: readonly string[];
  readonly value: unknown;
  readonly origin: Origin;
}

export interface Overrides {
  readonly overrides: readonly Override[];
  readonly problems: readonly ConfigProblem[];
}

/** Two underscores part the levels; one parts words: COVEY_RUN__TRAIN__GLOBAL_BATCH=64 is `train.globalBatch: 64`. */
const ENV_PREFIX = 'COVEY_RUN__';

/**
 * Overrides from variables that start with `COVEY_RUN__`, in the order of their names. Case and single underscores do not
 * matter; values are YAML. Empty values count as not set. COVEY_S3_* and the like are not configuration of a run.
 */
export function overridesFromEnv(env: Readonly<Record<string, string | undefined>>): Overrides {
  const names = Object.keys(env)
    .filter((name) => name.startsWith(ENV_PREFIX) && env[name] !== '')
    .sort();
  return collect(
    names.map((name) => {
      const path: string[] = [];
      for (const segment of name.slice(ENV_PREFIX.length).split('__')) {
        const known = keysAt(path).find((key) => plainKey(key) === plainKey(segment));
        path.push(known ?? segment.toLowerCase());
      }
      return { path, text: env[name] ?? '', origin: { source: 'env', name } };
    }),
  );
}

/** Overrides from `--set a.b=c`, in order; the value is YAML, and `null` takes the default. */
export function overridesFromSets(sets: readonly string[]): Overrides {
  return collect(
    sets.map((text) => {
      const at = text.indexOf('=');
      const origin: Origin = { source: 'set', text };
      return at < 1
        ? { path: [], text: '', origin }
        : { path: text.slice(0, at).trim().split('.'), text: text.slice(at + 1), origin };
    }),
  );
}

function collect(
  raw: readonly { readonly path: readonly string[]; readonly text: string; readonly origin: Origin }[],
): Overrides {
  const overrides: Override[] = [];
  const problems: ConfigProblem[] = [];
  for (const { path, text, origin } of raw) {
    const dotted = path.join('.');
    if (path.length === 0 || path.some((key) => key === '' || key === '__proto__')) {
      problems.push({ path: dotted, message: 'not an assignment: write path.to.key=value', origin });
      continue;
    }
    try {
      overrides.push({ path, value: parsedValue(path, text), origin });
    } catch {
      problems.push({ path: dotted, message: 'the value is not valid YAML', origin, value: text });
    }
  }
  return { overrides, problems };
}

function parsedValue(path: readonly string[], text: string): unknown {
  const value: unknown = parse(text);
  if (value === null || value === undefined) return undefined;
  return isTextAt(path) && typeof value !== 'object' ? text.trim() : value;
}

/** Applies one override to plain data, in place. Returns a problem where a parent is not an object. */
export function applyOverride(data: Record<string, unknown>, override: Override): ConfigProblem | undefined {
  let parent = data;
  for (const [depth, key] of override.path.slice(0, -1).entries()) {
    // `model: tiny` is short for `model: {preset: tiny}`, and has fields to override all the same.
    if (depth === 0 && key === 'model' && typeof parent[key] === 'string') parent[key] = { preset: parent[key] };
    parent[key] ??= {};
    const next = parent[key];
    if (typeof next !== 'object' || Array.isArray(next)) {
      const at = override.path.slice(0, depth + 1).join('.');
      return {
        path: override.path.join('.'),
        message: `${at} is not an object, so it has no key to set`,
        origin: override.origin,
      };
    }
    parent = next as Record<string, unknown>;
  }
  const last = override.path.at(-1)!;
  if (override.value === undefined) delete parent[last];
  else parent[last] = override.value;
  return undefined;
}
