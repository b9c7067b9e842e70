import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
// @ts-expect-error a script without types
import { findViolations as find } from '../../scripts/check-imports.mjs';

const findViolations = find as (root: string) => string[];
const REPOSITORY = path.resolve(import.meta.dirname, '../..');

describe('the import direction check', () => {
  let root: string;
  beforeEach(() => {
    root = mkdtempSync(path.join(tmpdir(), 'covey-imports-'));
  });
  afterEach(() => rmSync(root, { recursive: true, force: true }));

  function write(file: string, text: string): void {
    mkdirSync(path.join(root, path.dirname(file)), { recursive: true });
    writeFileSync(path.join(root, file), text);
  }

  it('finds nothing in the repository itself', () => {
    expect(findViolations(REPOSITORY)).toEqual([]);
  });

  it.each([
    ['common/a.ts', "import { x } from '../proto/x.ts';", 'common may not import proto'],
    ['worker/a.ts', "import type { X } from '../coordinator/x.ts';", 'worker may not import coordinator'],
    ['coordinator/a.ts', "export * from '../models/x.ts';", 'coordinator may not import models'],
    ['models/a.ts', "const x = await import('../worker/x.ts');", 'models may not import worker'],
    ['models/clip/a.ts', "import { tf } from '#tfjs';", 'only engine/tf.ts imports #tfjs'],
    ['engine/ops/a.ts', "import * as tf from '@tensorflow/tfjs-core';", 'nobody imports @tensorflow'],
    ['worker/a.ts', "import { addon } from '../engine/native/load.ts';", 'only engine/ loads native code'],
    ['common/a.ts', "process.dlopen(module, 'x');", 'only engine/ loads native code'],
    ['coordinator/core/a.ts', "import { readFileSync } from 'node:fs';", 'is pure: it may not import node:fs'],
    ['coordinator/core/a.ts', "import { systemClock } from '../../common/clock.ts';", 'is pure: it may not import'],
    ['coordinator/core/a.ts', 'export const now = Date.now();', 'is pure: export const now'],
  ])('names what is wrong in %s: %s', (file, text, problem) => {
    write(file, text);
    const violations = findViolations(root);
    expect(violations.length).toBeGreaterThan(0);
    expect(violations[0]).toContain(`${file}`);
    expect(violations.join('\n')).toContain(problem);
  });

  it('allows what the table allows', () => {
    write('cli/a.ts', "import '../worker/x.ts'; import '../coordinator/x.ts'; import 'commander'; import 'node:fs';");
    write('worker/a.ts', "import '../models/x.ts'; import type { Y } from '../proto/x.ts';");
    write('engine/tf.ts', "export * from '#tfjs';");
    write(
      'coordinator/core/a.ts',
      "import { assert } from '../../common/errors.ts';\n// Date.now() is passed in\nimport './b.ts';",
    );
    expect(findViolations(root)).toEqual([]);
  });
});
