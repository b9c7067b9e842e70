import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { CoveyError } from '../errors.ts';
import { fromFileError } from '../file-errors.ts';
import { configSha256 } from './canonical-json.ts';
import { applyOverride, type Override, overridesFromEnv, overridesFromSets } from './overrides.ts';
import { type ConfigProblem, configInvalid, type Origin, problemsOfIssue, valueAt } from './problems.ts';
import { type RunConfig, runConfigSchema } from './run-config.ts';
import { type RunPreset, readRunPreset, underlay } from './run-presets.ts';
import { YamlSource } from './yaml-source.ts';

export interface LoadRunConfigOptions {
  /** The YAML file. One of `path` and `text` must be given. */
  readonly path?: string;
  /** The YAML itself; relative paths in it then count from `cwd`. */
  readonly text?: string;
  /** Where COVEY_RUN__* are read; see overrides.ts. Default: none. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** `--set` arguments, `a.b=c`; the last one wins. */
  readonly sets?: readonly string[];
  /** Base of relative paths in env and sets. Default: the working directory. */
  readonly cwd?: string;
}

export interface LoadedRunConfig {
  /** Deeply frozen, defaults filled in. Holds no secrets. */
  readonly config: RunConfig;
  /** Where each leaf came from, by dotted path; lists are leaves. */
  readonly origins: Readonly<Record<string, Origin>>;
  /** Of the canonical JSON of `config`. */
  readonly sha256: string;
}

/** Plain paths at these keys become absolute file:// URLs; a value with a scheme stays as it is. */
const URL_KEYS: readonly (readonly string[])[] = [
  ['store'],
  ['data', 'manifest'],
  ['data', 'tokenizer'],
  ['train', 'initFrom'],
];
const PATH_KEYS = [['data', 'cacheDir']] as const;

/**
 * Reads a run's configuration: the preset that it names, file, environment (COVEY_RUN__TRAIN__STEPS=100), then `--set train.steps=100`; later
 * wins.
 * Throws CONFIG_INVALID with every problem at once, each with its place, or NOT_FOUND where the file is missing.
 */
export async function loadRunConfig(options: LoadRunConfigOptions): Promise<LoadedRunConfig> {
  const cwd = options.cwd ?? process.cwd();
  const file = options.path ?? 'config';
  const yaml = new YamlSource(options.text ?? (await readConfigFile(options.path, cwd)));
  if (yaml.problems.length > 0) throw configInvalid(yaml.problems, file);
  const data = yaml.value();
  if (typeof data !== 'object' || data === null || Array.isArray(data)) {
    throw configInvalid([{ path: '', message: 'must be a map of keys to values', line: 1, column: 1 }], file);
  }
  const input = data as Record<string, unknown>;
  const env = overridesFromEnv(options.env ?? {});
  const sets = overridesFromSets(options.sets ?? []);
  const overrides = [...env.overrides, ...sets.overrides];
  const failed = overrides.flatMap((override) => applyOverride(input, override) ?? []);
  const problems = [...env.problems, ...sets.problems, ...failed];
  const fileFolder = options.path === undefined ? cwd : path.dirname(path.resolve(cwd, options.path));
  resolvePaths(input, (keys) => (overrideOf(keys, { overrides }) ? cwd : fileFolder));
  problems.push(...credentialProblems(input));
  const { preset, problem } = presetOf(input['preset']);
  if (problem !== undefined) problems.push(problem);
  const sources: Sources = { file, yaml, overrides, preset };
  const whole = underlay(preset?.config, input);

  const parsed = runConfigSchema.safeParse(whole);
  // Without its preset a config lacks nearly everything: the preset's name is what there is to say.
  if (!parsed.success && problem === undefined)
    problems.push(...parsed.error.issues.flatMap((issue) => problemsOfIssue(issue, whole)));
  if (problems.length > 0) throw configInvalid(sortByPlace(problems.map((problem) => place(problem, sources))), file);
  const config = deepFreeze(parsed.data!);
  return { config, origins: originsOf(config, sources), sha256: configSha256(config) };
}

interface Sources {
  readonly file: string;
  readonly yaml: YamlSource;
  readonly overrides: readonly Override[];
  readonly preset: RunPreset | undefined;
}

function presetOf(name: unknown): { readonly preset?: RunPreset; readonly problem?: ConfigProblem } {
  // Anything but a name is the schema's to refuse.
  if (typeof name !== 'string') return {};
  try {
    return { preset: readRunPreset(name) };
  } catch (thrown) {
    if (!CoveyError.is(thrown, 'CONFIG_INVALID')) throw thrown;
    return { problem: (thrown.fields['problems'] as ConfigProblem[])[0]! };
  }
}

async function readConfigFile(file: string | undefined, cwd: string): Promise<string> {
  if (file === undefined)
    throw new CoveyError('INVALID_ARGUMENT', 'Cannot load a configuration: neither path nor text given');
  try {
    return await readFile(path.resolve(cwd, file), 'utf8');
  } catch (error) {
    throw fromFileError(error, 'read configuration', file);
  }
}

/** The last override that gave this path, or something above or below it. */
function overrideOf(keys: readonly string[], { overrides }: Pick<Sources, 'overrides'>): Override | undefined {
  return overrides.findLast(({ path: at }) => {
    const shared = Math.min(at.length, keys.length);
    return at.slice(0, shared).join('.') === keys.slice(0, shared).join('.') && at.length <= keys.length;
  });
}

function resolvePaths(input: Record<string, unknown>, folderOf: (keys: readonly string[]) => string): void {
  const replace = (keys: readonly string[], change: (value: string) => string) => {
    const parent = valueAt(input, keys.slice(0, -1)) as Record<string, unknown> | undefined;
    const value = valueAt(input, keys);
    if (parent && typeof value === 'string' && value !== '') parent[keys.at(-1)!] = change(value);
  };
  for (const keys of urlKeysOf(input)) {
    replace(keys, (value) => {
      if (/^[a-zA-Z][a-zA-Z0-9+.-]*:\/\//.test(value) || (keys[1] === 'tokenizer' && value === 'clip')) return value;
      return pathToFileURL(path.resolve(folderOf(keys), value)).href;
    });
  }
  for (const keys of PATH_KEYS) replace(keys, (value) => path.resolve(folderOf(keys), value));
}

/** With one for each dataset of a mixture, and those of every held-out dataset. */
function urlKeysOf(input: unknown): readonly (readonly string[])[] {
  const listed = (keys: readonly string[]) => {
    const list = valueAt(input, keys);
    return Array.isArray(list) ? list.map((_, i) => [...keys, String(i)]) : [];
  };
  return [
    ...URL_KEYS,
    ...listed(['data', 'mixture']).map((keys) => [...keys, 'manifest']),
    ...listed(['eval', 'datasets']).flatMap((keys) => ['manifest', 'fit'].map((key) => [...keys, key])),
  ];
}

/** A key in a URL would be printed, logged and stored with every checkpoint. */
function credentialProblems(input: unknown): ConfigProblem[] {
  return urlKeysOf(input).flatMap((keys) => {
    const value = valueAt(input, keys);
    if (typeof value !== 'string' || !/^[a-z0-9+.-]+:\/\/[^/]*@/i.test(value)) return [];
    return [
      {
        path: keys.join('.'),
        message: 'must not hold credentials; put them in COVEY_S3_ACCESS_KEY and COVEY_S3_SECRET_KEY',
      },
    ];
  });
}

/** Adds origin, line and column. */
function place(problem: ConfigProblem, sources: Sources): ConfigProblem {
  if (problem.origin) return problem;
  const keys = problem.path === '' ? [] : problem.path.split('.');
  const override = overrideOf(keys, sources);
  if (override) return { ...problem, origin: override.origin };
  const position = sources.yaml.positionOf(keys);
  return { ...problem, ...position, origin: { source: 'file', file: sources.file, ...position } };
}

function sortByPlace(problems: readonly ConfigProblem[]): ConfigProblem[] {
  const order = (problem: ConfigProblem) =>
    problem.line === undefined ? Number.POSITIVE_INFINITY : problem.line * 10_000 + (problem.column ?? 0);
  return [...problems].sort((a, b) => (order(a) < order(b) ? -1 : order(a) > order(b) ? 1 : 0));
}

function originsOf(config: RunConfig, sources: Sources): Record<string, Origin> {
  const origins: Record<string, Origin> = {};
  const visit = (value: unknown, keys: readonly string[]) => {
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
      for (const [key, member] of Object.entries(value)) visit(member, [...keys, key]);
      return;
    }
    origins[keys.join('.')] = originOf(keys, sources);
  };
  visit(config, []);
  return origins;
}

function originOf(keys: readonly string[], sources: Sources): Origin {
  const override = overrideOf(keys, sources);
  // An override that took the key out left its default.
  if (override?.value === undefined && override)
    return sources.preset && valueAt(sources.preset.config, keys) !== undefined
      ? { source: 'preset', name: sources.preset.name }
      : { source: 'default' };
  if (
    override &&
    (override.path.length === keys.length || valueAt(override.value, keys.slice(override.path.length)) !== undefined)
  )
    return override.origin;
  const position = sources.yaml.exactPositionOf(keys);
  if (position) return { source: 'file', file: sources.file, ...position };
  const { preset } = sources;
  if (preset && valueAt(preset.config, keys) !== undefined) return { source: 'preset', name: preset.name };
  return { source: 'default' };
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    for (const member of Object.values(value)) deepFreeze(member);
    Object.freeze(value);
  }
  return value;
}
