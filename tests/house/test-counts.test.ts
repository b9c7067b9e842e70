import { describe, expect, it } from 'vitest';
// @ts-expect-error a script without types
import { countConformance, countResults, summaryLine } from '../../scripts/test-counts.mjs';

function report(files: { status: string; tests: string[] }[]) {
  const all = files.flatMap((file) => file.tests);
  const count = (status: string) => all.filter((one) => one === status).length;
  return {
    numPassedTests: count('passed'),
    numFailedTests: count('failed'),
    numPendingTests: count('pending'),
    numTodoTests: count('todo'),
    testResults: files.map((file) => ({
      status: file.status,
      assertionResults: file.tests.map((status) => ({ status })),
    })),
  };
}

describe('the last line of npm test', () => {
  it('counts passed, failed and skipped tests', () => {
    const counts = countResults(report([{ status: 'failed', tests: ['passed', 'failed', 'pending', 'todo'] }]), false);
    expect(summaryLine(counts)).toBe('1 passed, 1 failed, 2 skipped');
  });

  it('counts a file that does not load as a failure', () => {
    const counts = countResults(
      report([
        { status: 'failed', tests: [] },
        { status: 'passed', tests: ['passed'] },
      ]),
      false,
    );
    expect(summaryLine(counts)).toBe('1 passed, 1 failed');
  });

  it('counts a run that fails although each test passed, and a report that is missing, as a failure', () => {
    expect(summaryLine(countResults(report([{ status: 'passed', tests: ['passed'] }]), false))).toBe(
      '1 passed, 1 failed',
    );
    expect(summaryLine(countResults(undefined, false))).toBe('0 passed, 1 failed');
  });

  it('leaves out the skipped where there are none', () => {
    expect(summaryLine(countResults(report([{ status: 'passed', tests: ['passed'] }]), true))).toBe(
      '1 passed, 0 failed',
    );
  });
});

describe('the counts of the conformance run', () => {
  const report = { specs: 10, passed: 7, failed: 0, excluded: 1, pending: 2, failures: [] };

  it('takes pending and excluded specs as skipped', () => {
    expect(countConformance(JSON.stringify(report), 0).counts).toEqual({ passed: 7, failed: 0, skipped: 3 });
  });

  it('names each failure', () => {
    const failures = [{ spec: 'abs torch {} basic', messages: ['Arrays differ'] }];
    const { counts, lines } = countConformance(JSON.stringify({ ...report, failed: 1, failures }), 1);
    expect(counts.failed).toBe(1);
    expect(lines.join('\n')).toContain('abs torch {} basic: Arrays differ');
  });

  it('counts a run that died, or ran nothing, as a failure', () => {
    expect(countConformance('Segmentation fault', 139).counts.failed).toBe(1);
    expect(countConformance(JSON.stringify(report), 1).counts.failed).toBe(1);
    expect(countConformance(JSON.stringify({ ...report, specs: 0, passed: 0 }), 0).counts.failed).toBe(1);
  });

  it('counts a machine without the addon as one skipped test', () => {
    const counts = countConformance(JSON.stringify({ specs: 0, skipped: 'no addon' }), 0).counts;
    expect(counts).toEqual({ passed: 0, failed: 0, skipped: 1 });
  });
});
