import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { parse } from 'yaml';
import { z } from 'zod';
import { packageRoot } from '../built-module.ts';
import { CoveyError } from '../errors.ts';
import { nearestKey } from './schema-keys.ts';

/** Beside this file in the sources; compiled code reads it from there too. */
const FOLDER = 'common/config/recipes';

/** What a file of the folder holds. */
const runPresetSchema = z.strictObject({
  about: z.strictObject({
    title: z.string(),
    source: z.string().describe('Paper and repository, with the place in them'),
    data: z.string().describe('What it was trained on, and for how long'),
    figures: z.string().describe('What the source reports at full scale'),
    differs: z.string().optional().describe('Where this is not the source'),
  }),
  config: z.record(z.string(), z.unknown()),
});

export interface RunPreset extends z.infer<typeof runPresetSchema> {
  readonly name: string;
  /** The file, comments included. */
  readonly text: string;
}

const folder = () => path.join(packageRoot(), FOLDER);

/** Names that `preset:` of run.yaml takes, sorted. */
export function runPresetNames(): string[] {
  return readdirSync(folder())
    .filter((file) => file.endsWith('.yaml'))
    .map((file) => file.slice(0, -'.yaml'.length))
    .sort();
}

/** @throws CoveyError CONFIG_INVALID for a name that is none, with the list */
export function readRunPreset(name: string): RunPreset {
  const names = runPresetNames();
  if (!names.includes(name)) {
    const problem = { path: 'preset', message: unknownPreset(name, names), value: name };
    throw new CoveyError('CONFIG_INVALID', `Cannot use preset ${name}: it is ${problem.message}`, {
      fields: { problems: [problem] },
    });
  }
  const text = readFileSync(path.join(folder(), `${name}.yaml`), 'utf8');
  return { name, text, ...runPresetSchema.parse(parse(text)) };
}

function unknownPreset(name: string, names: readonly string[]): string {
  const meant = nearestKey(name, names);
  return `unknown${meant === undefined ? '' : `; did you mean ${meant}?`}; there are ${names.join(', ')}`;
}

/**
 * What a person wrote, on top of a preset's values: sections are merged key by key, everything else is replaced. `model: NAME` counts as
 * `model: {preset: NAME}` where the other side is a section.
 */
export function underlay(base: unknown, written: unknown): unknown {
  if (written === undefined) return base;
  if (!isSection(base) || !isSection(written)) return written;
  const merged: Record<string, unknown> = { ...base };
  for (const [key, value] of Object.entries(written)) {
    const below = key === 'model' && isSection(value) ? asModelSection(base[key]) : base[key];
    merged[key] = underlay(below, value);
  }
  return merged;
}

function asModelSection(model: unknown): unknown {
  return typeof model === 'string' ? { preset: model } : model;
}

function isSection(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
