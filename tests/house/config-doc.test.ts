import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { runConfigSchema } from '../../common/config/run-config.ts';
// @ts-expect-error a script without types
import { renderConfigDoc } from '../../scripts/config-doc.mjs';

describe('docs/config.md', () => {
  it('is what the schema says; otherwise run `npm run build && node scripts/gen-config-doc.mjs`', () => {
    const page = readFileSync(path.resolve(import.meta.dirname, '../../docs/config.md'), 'utf8');
    expect(page).toBe(renderConfigDoc(z.toJSONSchema(runConfigSchema, { io: 'input' })));
  });

  it('names every key with its default and its limits', () => {
    const schema = z.strictObject({
      run: z.string().describe('Name'),
      train: z
        .strictObject({ steps: z.int().positive(), clip: z.number().min(0).max(1).default(0.5) })
        .prefault({ steps: 1 }),
    });
    const page = renderConfigDoc(z.toJSONSchema(schema, { io: 'input' })) as string;
    expect(page).toContain('| `run` | string | **required** | Name |');
    expect(page).toContain('| `train.steps` | whole number > 0 | **required** |  |');
    expect(page).toContain('| `train.clip` | number ≥ 0, ≤ 1 | `0.5` |  |');
  });
});
