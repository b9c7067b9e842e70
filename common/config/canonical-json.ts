import { createHash } from 'node:crypto';
import type { RunConfig } from './run-config.ts';

/** JSON with sorted keys and no spaces: the same value gives the same text, whatever order it was written in. Undefined members are left out, as JSON does. */
export function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_, member: unknown) => {
    if (typeof member !== 'object' || member === null || Array.isArray(member)) return member;
    return Object.fromEntries(Object.entries(member).sort(([a], [b]) => (a < b ? -1 : 1)));
  });
}

/** SHA-256 (hex) of the canonical JSON: stored with each checkpoint and compared on resume. */
export function configSha256(config: RunConfig): string {
  return createHash('sha256').update(canonicalJson(config)).digest('hex');
}
