import { describe, expect, it } from 'vitest';
import { stepsFor } from '../../cli/demo/demo.ts';
import { trainingRecord } from '../../cli/demo/demo-report.ts';
import { medianStepSeconds, ObservedRun } from '../../cli/demo/observed-run.ts';
import type { StepRecord } from '../../proto/gen/covey/v1/StepRecord.ts';

function record(step: number, generation: number, timeSeconds: number, loss = 3): StepRecord {
  return {
    step,
    generation,
    loss,
    logitScale: 14,
    gradNorm: 1,
    learningRate: 1e-3,
    samples: 256,
    weightsDigest: 'd',
    stepSeconds: 0.5,
    phaseSeconds: { forward: 0.2, backward: 0.3 },
    skipped: false,
    timeSeconds,
    peakMemoryBytes: 0,
    metrics: {},
    health: {},
    similarities: [],
  };
}

const generation = (run: ObservedRun, number: number, members: number) =>
  run.observe({
    run: null,
    step: null,
    evaluation: null,
    event: {
      sequence: number,
      timeSeconds: 0,
      kind: 'generation',
      message: '',
      fields: { generation: String(number), members: String(members) },
    },
  });

const observe = (run: ObservedRun, one: StepRecord) =>
  run.observe({ run: null, event: null, step: one, evaluation: null });

describe('ObservedRun', () => {
  it('measures recovery from the kill to the first step of a later generation', () => {
    const run = new ObservedRun();
    for (let step = 1; step <= 3; step++) observe(run, record(step, 1, 100 + step));
    run.kill = { atSeconds: 103.2, pid: 1, step: 3, generation: 1 };
    // In flight when the worker died: committed by what was left of its generation, so it says nothing about recovery.
    observe(run, record(4, 1, 103.3));
    generation(run, 2, 1);
    observe(run, record(5, 2, 106.2));
    // The survivor alone again: nobody has been replaced yet.
    generation(run, 3, 1);
    observe(run, record(6, 3, 108.2));
    expect(run.replacedSeconds).toBeUndefined();
    generation(run, 4, 2);
    observe(run, record(7, 4, 111.2));
    expect(run.recoverySeconds).toBeCloseTo(3);
    expect(run.replacedSeconds).toBeCloseTo(8);
    expect(run.firstStepAfterKill?.step).toBe(5);
  });

  it('has no recovery to measure before a step follows the kill', () => {
    const run = new ObservedRun();
    observe(run, record(1, 1, 100));
    expect(run.recoverySeconds).toBeUndefined();
    run.kill = { atSeconds: 101, pid: 1, step: 1, generation: 1 };
    expect(run.recoverySeconds).toBeUndefined();
    expect(run.replacedSeconds).toBeUndefined();
  });

  it('keeps the later generation of a step that was committed again, and ignores replays', () => {
    const run = new ObservedRun();
    observe(run, record(1, 1, 100, 5));
    expect(observe(run, record(1, 2, 104, 4))?.loss).toBe(4);
    expect(observe(run, record(1, 1, 100, 5))).toBeUndefined();
    expect(run.steps.map(({ loss, generation }) => [loss, generation])).toEqual([[4, 2]]);
    expect(run.lastStep).toBe(1);
  });

  it('puts the kill and the gap on the clock of the first step', () => {
    const run = new ObservedRun();
    observe(run, record(1, 1, 100));
    run.kill = { atSeconds: 101, pid: 1, step: 1, generation: 1 };
    observe(run, record(2, 2, 104));
    const training = trainingRecord(run, 256);
    expect(training.steps.map(({ seconds }) => seconds)).toEqual([0.5, 4.5]);
    expect(training.marks).toMatchObject([{ step: 1, seconds: 1.5 }]);
    expect(training.gaps).toMatchObject([{ fromSeconds: 1.5, toSeconds: 4.5 }]);
  });
});

describe('medianStepSeconds', () => {
  it('is the median of the gaps after those skipped', () => {
    const times = [0, 10, 12, 13, 14, 16].map((timeSeconds) => ({ timeSeconds }));
    expect(medianStepSeconds(times, 1)).toBe(2);
    expect(medianStepSeconds(times.slice(0, 1), 0)).toBeNaN();
  });
});

describe('stepsFor', () => {
  it('fills the wished minutes at the measured pace, less what a kill costs', () => {
    const unharmed = stepsFor({ minutes: 4, kill: false }, 0.5);
    expect(unharmed).toBeGreaterThan(440);
    expect(unharmed).toBeLessThan(480);
    expect(stepsFor({ minutes: 4, kill: true }, 0.5)).toBeLessThan(unharmed);
    expect(stepsFor({ minutes: 0.1, kill: true }, 10)).toBeGreaterThan(0);
  });

  it('refuses a pace that was not measured', () => {
    expect(() => stepsFor({ minutes: 4, kill: false }, Number.NaN)).toThrow(/takes time/);
  });
});
