import { readFileSync } from 'node:fs';
import path from 'node:path';
import { packageRoot } from '../common/built-module.ts';

/** covey's version, from its package.json. */
export function packageVersion(): string {
  const parsed: unknown = JSON.parse(readFileSync(path.join(packageRoot(), 'package.json'), 'utf8'));
  return typeof parsed === 'object' && parsed !== null && 'version' in parsed ? String(parsed.version) : 'unknown';
}

/** What covey_build_info says. An image's build sets COVEY_COMMIT. */
export function buildIdentity(env: Readonly<NodeJS.ProcessEnv>): { readonly version: string; readonly commit: string } {
  return { version: packageVersion(), commit: env['COVEY_COMMIT'] ?? 'unknown' };
}
