import { type AugmentConfig, augmentSchema } from '../../common/config/augment-config.ts';
import type { RecipeName } from '../../common/config/augment-recipes.ts';
import { applyOverride, overridesFromSets } from '../../common/config/overrides.ts';
import { configInvalid, problemsOfIssue } from '../../common/config/problems.ts';

const AT = ['data', 'augment'] as const;

/** A recipe with `--set` arguments on top, keys as under `data.augment`. Throws CONFIG_INVALID with every problem at once. */
export function previewConfig(recipe: RecipeName, sets: readonly string[]): AugmentConfig {
  const input: Record<string, unknown> = { data: { augment: { recipe } } };
  const { overrides, problems } = overridesFromSets(sets.map((text) => `${AT.join('.')}.${text}`));
  const failed = overrides.flatMap((override) => applyOverride(input, override) ?? []);
  const parsed = augmentSchema.safeParse((input['data'] as { augment: unknown }).augment);
  const refused = (parsed.error?.issues ?? []).flatMap((issue) =>
    problemsOfIssue({ ...issue, path: [...AT, ...issue.path] }, input),
  );
  const all = [...problems, ...failed, ...refused];
  if (parsed.data === undefined || all.length > 0) throw configInvalid(all, `recipe ${recipe}`);
  return parsed.data;
}
