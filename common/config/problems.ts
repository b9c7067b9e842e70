import type { z } from 'zod';
import { CoveyError } from '../errors.ts';
import { keysAt, nearestKey } from './schema-keys.ts';

/** Where a value came from. `default` is the schema's. */
export type Origin =
  | { readonly source: 'file'; readonly file: string; readonly line: number; readonly column: number }
  | { readonly source: 'env'; readonly name: string }
  | { readonly source: 'set'; readonly text: string }
  | { readonly source: 'preset'; readonly name: string }
  | { readonly source: 'default' };

/** One thing that is wrong with a configuration. Lines and columns count from 1 and are absent for env and --set. */
export interface ConfigProblem {
  /** Dotted path, e.g. `train.optimizer.lr`; empty for the whole file. */
  readonly path: string;
  readonly message: string;
  readonly line?: number;
  readonly column?: number;
  readonly value?: unknown;
  readonly origin?: Origin;
}

const VALUE_CHARACTERS_MAX = 80;

/** `run.yaml:3:5: train.stepz: unknown key; did you mean steps?`, one line per problem. */
export function formatProblems(problems: readonly ConfigProblem[], file = 'config'): string {
  return problems
    .map((problem) => {
      const path = problem.path === '' ? '' : `${problem.path}: `;
      return `${whereOf(problem, file)}: ${path}${problem.message}`;
    })
    .join('\n');
}

function whereOf(problem: ConfigProblem, file: string): string {
  if (problem.origin?.source === 'env') return `environment ${problem.origin.name}`;
  if (problem.origin?.source === 'set') return `--set ${problem.origin.text}`;
  return problem.line === undefined ? file : `${file}:${problem.line}:${problem.column}`;
}

/** CONFIG_INVALID that names every problem; `fields.problems` holds them for programs. */
export function configInvalid(problems: readonly ConfigProblem[], file: string): CoveyError {
  const count = problems.length === 1 ? '1 problem' : `${problems.length} problems`;
  return new CoveyError('CONFIG_INVALID', `Cannot use ${file}: ${count}:\n${formatProblems(problems, file)}`, {
    fields: { file, problems },
  });
}

/** A zod issue as problems: one per unknown key, and a union's best branch. `input` is the whole value that was parsed. */
export function problemsOfIssue(issue: z.core.$ZodIssue, input: unknown): ConfigProblem[] {
  const path = issue.path;
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => {
      const meant = nearestKey(key, keysAt(path));
      const known = keysAt(path);
      const advice = meant ? `did you mean ${meant}?` : `known keys: ${known.join(', ')}`;
      return {
        path: [...path, key].join('.'),
        message: `unknown key; ${advice}`,
        value: valueAt(input, [...path, key]),
      };
    });
  }
  if (issue.code === 'invalid_union') {
    const branch = branchFor(issue.errors, valueAt(input, path));
    if (branch)
      return branch.flatMap((inner) =>
        problemsOfIssue({ ...inner, path: [...path, ...inner.path] } as z.core.$ZodIssue, input),
      );
  }
  const value = valueAt(input, path);
  const message = value === undefined ? missing(issue) : `${lowerFirst(issue.message)}: ${printed(value)}`;
  return [{ path: path.join('.'), message, value }];
}

/** A check across keys says itself why it misses one. */
function missing(issue: z.core.$ZodIssue): string {
  return issue.code === 'custom' ? issue.message : 'required but missing';
}

/** Of a union's branches the one whose outermost type fits: an object is judged as an object, not as a failed string. */
function branchFor(
  branches: readonly (readonly z.core.$ZodIssue[])[],
  value: unknown,
): readonly z.core.$ZodIssue[] | undefined {
  const fits = branches.find(
    (issues) => !issues.some((issue) => issue.path.length === 0 && issue.code === 'invalid_type'),
  );
  return fits ?? (typeof value === 'object' ? branches.at(-1) : undefined);
}

/** The value at a path of plain objects and arrays, or undefined. */
export function valueAt(input: unknown, path: readonly PropertyKey[]): unknown {
  let value = input;
  for (const key of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return undefined;
    value = (value as Record<PropertyKey, unknown>)[key];
  }
  return value;
}

function printed(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > VALUE_CHARACTERS_MAX ? `${text.slice(0, VALUE_CHARACTERS_MAX)}…` : text;
}

const lowerFirst = (text: string) => text.charAt(0).toLowerCase() + text.slice(1);
