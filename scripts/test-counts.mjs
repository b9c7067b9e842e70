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

export function summaryLine({ passed, failed, skipped }) {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`;
}
