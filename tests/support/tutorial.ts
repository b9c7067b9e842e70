import { spawn } from 'node:child_process';
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { processEnvironment } from '../../cli/process-environment.ts';
import { COVEY_MAIN } from './covey-command.ts';

/**
 * A tutorial is a page whose blocks are carried out, in order, in one folder:
 *   ```yaml run.yaml     the block is written to that file
 *   ```sh run            the block is run by bash, which stops at the first command that fails
 *   ```text output       quotes what the run before said, on stdout or stderr: these lines in this order, perhaps with others between them.
 *                        A number stands for any number, … for anything, and spaces for any number of spaces.
 * Any other block is only read. `${STEPS:-400}` in a block is how a test, or a reader in a hurry, makes a page smaller.
 */
export type TutorialStep =
  | { readonly kind: 'file'; readonly line: number; readonly name: string; readonly content: string }
  | { readonly kind: 'run'; readonly line: number; readonly script: string; readonly quoted: readonly string[] };

const FENCE = /^```(\S*) ?(.*)$/;

/** @throws Error where a quote has no run before it, or a block no end */
export function readTutorial(markdown: string): TutorialStep[] {
  const steps: TutorialStep[] = [];
  const lines = markdown.split('\n');
  for (let at = 0; at < lines.length; at++) {
    const opening = FENCE.exec(lines[at]!);
    if (opening === null) continue;
    const line = at + 1;
    const end = lines.indexOf('```', line);
    if (end < 0) throw new Error(`the block of line ${line} has no end`);
    const [, , words = ''] = opening;
    const block = lines.slice(line, end);
    if (words === 'run') steps.push({ kind: 'run', line, script: block.join('\n'), quoted: [] });
    else if (words === 'output') {
      const run = steps.pop();
      if (run?.kind !== 'run') throw new Error(`the output of line ${line} has no run before it`);
      steps.push({ ...run, quoted: [...run.quoted, ...block.filter((one) => one.trim() !== '')] });
    } else if (words !== '') {
      steps.push({ kind: 'file', line, name: words, content: `${block.join('\n')}\n` });
    }
    at = end;
  }
  return steps;
}

export interface TutorialOptions {
  /** Folder to run in; what is there is kept. */
  readonly folder: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** Carries a page out with `covey` on the path. @throws Error naming the line of the first block that fails or says something else */
export async function runTutorial(page: string, { folder, env = {} }: TutorialOptions): Promise<void> {
  const bin = await binFolder(folder);
  const where = (line: number) => `${path.basename(page)}, line ${line}`;
  for (const step of readTutorial(await readFile(page, 'utf8'))) {
    if (step.kind === 'file') {
      await writeFile(path.join(folder, step.name), step.content);
      continue;
    }
    const { code, said } = await bash(step.script, folder, { ...env, PATH: `${bin}:${process.env['PATH']}` });
    if (code !== 0) throw new Error(`${where(step.line)}: exit code ${code}\n${said}`);
    const missing = missingQuote(step.quoted, said);
    if (missing !== undefined)
      throw new Error(`${where(step.line)}: nothing fits the quoted line\n${missing}\nin\n${said}`);
  }
}

/** The first quoted line that what was said does not have in its place. */
export function missingQuote(quoted: readonly string[], said: string): string | undefined {
  const lines = said.split('\n');
  let from = 0;
  return quoted.find((quote) => {
    const pattern = quotePattern(quote);
    const found = lines.findIndex((line, i) => i >= from && pattern.test(line));
    from = found + 1;
    return found < 0;
  });
}

function quotePattern(quote: string): RegExp {
  const escaped = quote.trim().replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  const open = escaped
    .replace(/(?:\d|\\\.\d)+(?:e\\?[+-]?\d+)?/g, '[\\d.]+(?:e[+-]?\\d+)?')
    .replaceAll('…', '.*')
    .replace(/\s+/g, '\\s+');
  return new RegExp(`^\\s*${open}\\s*$`);
}

async function binFolder(folder: string): Promise<string> {
  const bin = path.join(folder, '.bin');
  const covey = path.join(bin, 'covey');
  await mkdir(bin, { recursive: true });
  await writeFile(covey, `#!/bin/sh\nexec "${process.execPath}" "${COVEY_MAIN}" "$@"\n`);
  await chmod(covey, 0o755);
  return bin;
}

function bash(script: string, cwd: string, env: Readonly<Record<string, string>>) {
  const child = spawn('bash', ['-euo', 'pipefail', '-c', script], {
    cwd,
    env: { ...processEnvironment(process.env), NO_COLOR: '1', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
  }
  return new Promise<{ code: number | null; said: string }>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, said }));
  });
}
