// How many tests passed, failed and were skipped, from vitest's JSON report.

/**
 * A file that could not be loaded has no tests of its own and counts as one failure; so does a report that is missing, and a
 * run that vitest calls failed (an unhandled error, say) although each test passed.
 */
export function countResults(report, vitestOk) {
  if (!report) return { passed: 0, failed: 1, skipped: 0 };
  const brokenFiles = report.testResults.filter(
    (file) => file.status === 'failed' && !file.assertionResults.some((test) => test.status === 'failed'),
  ).length;
  const counted = report.numFailedTests + brokenFiles;
  return {
    passed: report.numPassedTests,
    failed: counted === 0 && !vitestOk ? 1 : counted,
    skipped: report.numPendingTests + report.numTodoTests,
  };
}

/**
 * What `conformance.mjs --json` printed, as counts and as lines for a person. Output that is no report, or an exit status that contradicts it, is one
 * failure: the run died.
 */
export function countConformance(output, status) {
  let report;
  try {
    report = JSON.parse(output);
  } catch {
    report = { specs: 0, failed: 0, failures: [] };
  }
  if (report.skipped) {
    return { counts: { passed: 0, failed: 0, skipped: 1 }, lines: [`skipped conformance: ${report.skipped}`] };
  }
  const died = report.failed === 0 && (status !== 0 || report.specs === 0);
  const counts = {
    passed: report.passed ?? 0,
    failed: died ? 1 : report.failed,
    skipped: (report.pending ?? 0) + (report.excluded ?? 0),
  };
  const failures = report.failures.map(({ spec, messages }) => `       ${spec}: ${messages.join('; ')}`);
  const verdict = `${counts.failed === 0 ? 'ok    ' : 'FAILED'} tfjs-core's specs on the torch engine: ${summaryLine(counts)}`;
  return { counts, lines: [...failures, died ? `${verdict} (the run ended early: exit ${status})` : verdict] };
}

export function summaryLine({ passed, failed, skipped }) {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`;
}
