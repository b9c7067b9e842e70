import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { auditSamples, readSampleLogs, type SampleLogLine } from '../../cli/demo/sample-audit.ts';
import { temporaryFolder } from '../support/datasets.ts';

const LANES = 2;
const planned = async (step: number, lane: number) => [`s${step}-${lane}-a`, `s${step}-${lane}-b`];

function line(step: number, lane: number, generation: number): SampleLogLine {
  return { step, lane, generation, epoch: 0, samples: [`s${step}-${lane}-a`, `s${step}-${lane}-b`] };
}

const steps = [
  { step: 1, generation: 1 },
  { step: 2, generation: 1 },
  { step: 3, generation: 2 },
];
const complete = [line(0, 0, 1), line(0, 1, 1), line(1, 0, 1), line(1, 1, 1), line(2, 0, 2), line(2, 1, 2)];
const options = { totalSteps: 3, steps, lanes: LANES, planned };

describe('auditSamples', () => {
  it('finds nothing lost or doubled where every planned sample was consumed once', async () => {
    expect(await auditSamples(complete, options)).toEqual({ planned: 12, lost: 0, duplicated: 0, unlogged: 0 });
  });

  it('counts a lane that nobody consumed as lost', async () => {
    const audit = await auditSamples(
      complete.filter(({ step, lane }) => !(step === 1 && lane === 0)),
      options,
    );
    expect(audit).toMatchObject({ lost: 2, duplicated: 0, unlogged: 0 });
  });

  it('counts a lane that two workers consumed in the committed generation as doubled', async () => {
    expect(await auditSamples([...complete, line(2, 1, 2)], options)).toMatchObject({ lost: 0, duplicated: 2 });
  });

  it('does not count what an abandoned generation consumed', async () => {
    expect(await auditSamples([...complete, line(2, 0, 1), line(2, 1, 1)], options)).toMatchObject({
      lost: 0,
      duplicated: 0,
    });
  });

  it('counts another sample than the planned one as one lost and one doubled', async () => {
    const wrong = { ...line(0, 0, 1), samples: ['s0-0-a', 'other'] };
    expect(await auditSamples([wrong, ...complete.slice(1)], options)).toMatchObject({ lost: 1, duplicated: 1 });
  });

  it('calls a missing line unlogged only about the kill, and only where a survivor logged the step', async () => {
    const withoutOne = complete.filter(({ step, lane }) => !(step === 1 && lane === 1));
    expect(await auditSamples(withoutOne, { ...options, killedAtStep: 2 })).toMatchObject({ lost: 0, unlogged: 2 });
    const withoutBoth = complete.filter(({ step }) => step !== 1);
    expect(await auditSamples(withoutBoth, { ...options, killedAtStep: 2 })).toMatchObject({ lost: 4, unlogged: 0 });
    const early = complete.filter(({ step, lane }) => !(step === 0 && lane === 1));
    expect(await auditSamples(early, { ...options, killedAtStep: 3 })).toMatchObject({ lost: 2, unlogged: 0 });
  });

  it('takes the newest generation in the logs for a step whose record was not seen', async () => {
    const audit = await auditSamples([...complete, line(1, 0, 0)], { ...options, steps: [] });
    expect(audit).toMatchObject({ lost: 0, duplicated: 0 });
  });
});

describe('readSampleLogs', () => {
  let folder: Awaited<ReturnType<typeof temporaryFolder>>;
  beforeEach(async () => {
    folder = await temporaryFolder();
  });
  afterEach(() => folder.remove());

  it('leaves out the line that a kill cut off', async () => {
    const file = path.join(folder.path, 'worker.jsonl');
    const whole = JSON.stringify(line(0, 0, 1));
    await writeFile(file, `${whole}\n${whole.slice(0, 30)}`);
    expect(await readSampleLogs([file])).toEqual([line(0, 0, 1)]);
  });

  it('refuses a file that is no sample log', async () => {
    const file = path.join(folder.path, 'worker.jsonl');
    await writeFile(file, '{"step":"one"}\n');
    await expect(readSampleLogs([file])).rejects.toMatchObject({ code: 'DATA_CORRUPT' });
  });
});
