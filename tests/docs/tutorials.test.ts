import { readdirSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../common/built-module.ts';
import { missingQuote, readTutorial, runTutorial } from '../support/tutorial.ts';

const FOLDER = path.join(packageRoot(), 'docs', 'tutorials');
/** What the others go on from. */
const BACKBONE = 'backbone.md';
const pages = readdirSync(FOLDER).filter((name) => name.endsWith('.md') && name !== BACKBONE);
/** The pages' own sizes are for readers who want to see something learnt. */
const SMALL = { STEPS: '3', TUNE_STEPS: '3', LONGEST: '8' };
const DEADLINE_MS = 180_000;

describe('the tutorials, carried out', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'covey-tutorials-'));
    await runTutorial(path.join(FOLDER, BACKBONE), { folder, env: SMALL });
  }, DEADLINE_MS);
  afterAll(() => rm(folder, { recursive: true, force: true }));

  it.each(pages)(
    '%s does what it says',
    (page) => runTutorial(path.join(FOLDER, page), { folder, env: SMALL }),
    DEADLINE_MS,
  );
});

describe('the runner of tutorials', () => {
  it('reads files, runs and what they say, and leaves other blocks alone', () => {
    const page =
      '```yaml a.yaml\nx: 1\n```\ntext\n```sh run\necho 1\n```\n```text output\n1\n```\n```sh\nrm -rf /\n```\n';
    expect(readTutorial(page)).toEqual([
      { kind: 'file', line: 1, name: 'a.yaml', content: 'x: 1\n' },
      { kind: 'run', line: 5, script: 'echo 1', quoted: ['1'] },
    ]);
    expect(() => readTutorial('```text output\n1\n```\n')).toThrow(/no run before it/);
  });

  it.each([
    [['loss 1.5 after 20 steps'], 'say\nloss 0.123 after 7 steps\n', undefined],
    [['λ 1.0e-2 …', 'end'], '  λ 3.2e-4  found  \nmore\nend', undefined],
    [['a | b (c)'], 'a  |   b (c)', undefined],
    [['first', 'second'], 'second\nfirst', 'second'],
    [['3 classes'], 'three classes', '3 classes'],
    [['end'], 'the end', 'end'],
  ])('finds %j in %j, or what it lacks', (quoted, said, missing) => {
    expect(missingQuote(quoted, said)).toBe(missing);
  });

  it('tells the line of a block that fails, and of one that says something else', async () => {
    const folder = await mkdtemp(path.join(tmpdir(), 'covey-tutorial-'));
    const carriedOut = async (page: string) => {
      await writeFile(path.join(folder, 'page.md'), page);
      return runTutorial(path.join(folder, 'page.md'), { folder });
    };
    await expect(carriedOut('\n```sh run\ncovey --version\nfalse\n```\n')).rejects.toThrow(
      /page.md, line 2: exit code 1/,
    );
    const wrong = '```sh run\ncovey --version\n```\n```text output\nnothing like it\n```\n';
    await expect(carriedOut(wrong)).rejects.toThrow(/line 1: nothing fits the quoted line\nnothing like it/);
    await rm(folder, { recursive: true });
  });
});
