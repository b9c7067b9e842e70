// What a run of the conformance specs means, given the list of specs that are expected to fail.

/** More would mean that the backend is not tfjs any more. */
export const EXCLUSIONS_MAX = 3;

/**
 * `specs`: {name, status: 'passed' | 'failed' | 'pending', messages}; `exclusions`: {spec, reason}. Checked both ways: a failure that is not listed
 * counts as failed, and so does a listed spec that passes or does not exist (unless only part of the specs ran), one without a reason, and a list that
 * is too long.
 */
export function judge(specs, exclusions, { partial = false } = {}) {
  const listed = new Set(exclusions.map(({ spec }) => spec));
  const failedSpecs = specs.filter(({ status }) => status === 'failed');
  const failures = failedSpecs
    .filter(({ name }) => !listed.has(name))
    .map(({ name, messages }) => ({ spec: name, messages }));
  for (const { spec, reason } of exclusions) {
    const same = specs.filter(({ name }) => name === spec);
    const problem = !reason
      ? 'is excluded without a reason'
      : same.length === 0 && !partial
        ? 'is excluded but does not exist'
        : same.length > 0 && same.every(({ status }) => status !== 'failed')
          ? 'is excluded but does not fail: take it off the list'
          : undefined;
    if (problem) failures.push({ spec, messages: [problem] });
  }
  if (exclusions.length > EXCLUSIONS_MAX) {
    failures.push({
      spec: '(list)',
      messages: [`${exclusions.length} exclusions, at most ${EXCLUSIONS_MAX} are allowed`],
    });
  }
  return {
    specs: specs.length,
    passed: specs.filter(({ status }) => status === 'passed').length,
    failed: failures.length,
    excluded: failedSpecs.filter(({ name }) => listed.has(name)).length,
    pending: specs.filter(({ status }) => status === 'pending').length,
    failures,
  };
}

/** The report for a person. */
export function reportLines({ specs, passed, failed, excluded, pending, failures }, seconds) {
  return [
    ...failures.map(
      ({ spec, messages }) => `FAILED ${spec}\n${messages.map((message) => `       ${message}`).join('\n')}`,
    ),
    `tfjs-core's specs on the torch backend, ${seconds.toFixed(1)} s`,
    ...Object.entries({ specs, passed, failed, excluded, pending }).map(
      ([name, count]) => `  ${name.padEnd(9)}${String(count).padStart(6)}`,
    ),
  ];
}
