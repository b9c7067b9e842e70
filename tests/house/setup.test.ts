import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
// @ts-expect-error a script without types
import { findProgram, missingPackages } from '../../scripts/setup-steps.mjs';

describe('set-up', () => {
  let root: string;
  beforeEach(() => {
    root = mkdtempSync(path.join(tmpdir(), 'covey-setup-'));
    mkdirSync(path.join(root, 'node_modules'));
  });
  afterEach(() => rmSync(root, { recursive: true, force: true }));

  const lock = (file: string, packages: Record<string, object>) =>
    writeFileSync(path.join(root, file), JSON.stringify({ packages: { '': {}, ...packages } }));

  it('wants all packages where none are installed', () => {
    lock('package-lock.json', { 'node_modules/a': { version: '1.0.0' } });
    expect(missingPackages(root)).toEqual(['(all)']);
  });

  it('names packages that are absent or of another version, and forgives optional ones', () => {
    lock('package-lock.json', {
      'node_modules/same': { version: '1.0.0' },
      'node_modules/older': { version: '2.0.0' },
      'node_modules/absent': { version: '1.0.0' },
      'node_modules/other-platform': { version: '1.0.0', optional: true },
    });
    lock('node_modules/.package-lock.json', {
      'node_modules/same': { version: '1.0.0' },
      'node_modules/older': { version: '1.0.0' },
    });
    expect(missingPackages(root)).toEqual(['older', 'absent']);
  });

  it('finds programs on PATH and says undefined for others', () => {
    writeFileSync(path.join(root, 'some-server'), '');
    expect(findProgram('some-server', { PATH: root })).toBe(path.join(root, 'some-server'));
    expect(findProgram('no-such-server-anywhere', { PATH: root })).toBeUndefined();
  });
});
