import { describe, expect, it } from 'vitest';
// @ts-expect-error a script without types
import { countResults, summaryLine } from '../../scripts/test-counts.mjs';

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
