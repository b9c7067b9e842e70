import { readFileSync } from 'node:fs';
import { arch, availableParallelism, cpus, platform } from 'node:os';
import path from 'node:path';
import sharp from 'sharp';
import { z } from 'zod';
import { packageRoot } from '../../common/built-module.ts';

/** What the report says about where the demo ran: programs with versions, the machine's kind, the options. */
export function demoEnvironment(
  engine: string,
  options: { readonly minutes: number; readonly workers: number; readonly seed: number },
): Record<string, string> {
  return {
    covey: packageVersion(),
    node: process.version,
    engine,
    sharp: `${sharp.versions.sharp ?? 'unknown'} (libvips ${sharp.versions.vips})`,
    machine: `${platform()} ${arch()}, ${availableParallelism()} cores, ${cpus()[0]?.model.trim() ?? 'unknown processor'}`,
    options: `--minutes ${options.minutes} --workers ${options.workers} --seed ${options.seed}`,
  };
}

function packageVersion(): string {
  const parsed: unknown = JSON.parse(readFileSync(path.join(packageRoot(), 'package.json'), 'utf8'));
  return z.object({ version: z.string() }).parse(parsed).version;
}
