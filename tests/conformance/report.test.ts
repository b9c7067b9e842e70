import { describe, expect, it } from 'vitest';
// @ts-expect-error a script without types
import { judge } from '../../scripts/conformance-report.mjs';

const spec = (name: string, status = 'passed') => ({ name, status, messages: status === 'failed' ? ['differs'] : [] });
const reason = 'a quirk of tfjs';

describe('the verdict on a conformance run', () => {
  it('counts passed, pending and expected failures apart', () => {
    const specs = [spec('a'), spec('b', 'pending'), spec('c', 'failed')];
    expect(judge(specs, [{ spec: 'c', reason }])).toEqual({
      specs: 3,
      passed: 1,
      failed: 0,
      excluded: 1,
      pending: 1,
      failures: [],
    });
  });

  it('fails on a failure that nobody expects', () => {
    const { failed, failures } = judge([spec('a'), spec('b', 'failed')], []);
    expect(failed).toBe(1);
    expect(failures).toEqual([{ spec: 'b', messages: ['differs'] }]);
  });

  it('fails on an excluded spec that passes', () => {
    expect(judge([spec('a')], [{ spec: 'a', reason }]).failures[0].messages[0]).toMatch(/does not fail/);
  });

  it('fails on an excluded spec that does not exist, unless only part of them ran', () => {
    expect(judge([spec('a')], [{ spec: 'z', reason }]).failures[0].messages[0]).toMatch(/does not exist/);
    expect(judge([spec('a')], [{ spec: 'z', reason }], { partial: true }).failed).toBe(0);
  });

  it('fails on an exclusion without a reason, and on more than three', () => {
    expect(judge([spec('a', 'failed')], [{ spec: 'a' }]).failures[0].messages[0]).toMatch(/without a reason/);
    const names = ['a', 'b', 'c', 'd'];
    const specs = names.map((name) => spec(name, 'failed'));
    const exclusions = names.map((name) => ({ spec: name, reason }));
    expect(judge(specs, exclusions).failures[0].messages[0]).toMatch(/at most 3/);
  });
});
