import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Clock } from '../../common/clock.ts';
import { CoveyError } from '../../common/errors.ts';
import { RandomStream } from '../../common/random.ts';
import { backoffDelayMs, type RetryPolicy, retry } from '../../common/retry.ts';

/** Time that moves only when someone sleeps. */
function virtualClock(): Clock & { slept: number[] } {
  let nowMs = 1_000_000;
  const slept: number[] = [];
  return {
    slept,
    now: () => nowMs,
    sleep: async (durationMs, signal) => {
      if (signal?.aborted) throw signal.reason;
      slept.push(durationMs);
      nowMs += durationMs;
    },
  };
}

const policies = fc.record({
  attemptsMax: fc.integer({ min: 1, max: 20 }),
  delayBaseMs: fc.integer({ min: 1, max: 1000 }),
  delayMaxMs: fc.integer({ min: 1, max: 60_000 }),
});
const yes = () => ({ retry: true, reason: 'test' });
const failing = async (): Promise<never> => {
  throw new CoveyError('UNAVAILABLE', 'down');
};

describe('retry', () => {
  it('keeps every delay within full jitter, for any policy and seed', () => {
    fc.assert(
      fc.property(policies, fc.integer(), fc.integer({ min: 1, max: 2000 }), (policy, seed, failures) => {
        const delayMs = backoffDelayMs(failures, policy, new RandomStream(seed));
        expect(delayMs).toBeGreaterThanOrEqual(0);
        expect(delayMs).toBeLessThanOrEqual(Math.min(policy.delayMaxMs, policy.delayBaseMs * 2 ** (failures - 1)));
      }),
    );
  });

  it('spreads delays over the whole interval', () => {
    const policy: RetryPolicy = { attemptsMax: 9, delayBaseMs: 100, delayMaxMs: 1000 };
    const random = new RandomStream('spread');
    const delays = Array.from({ length: 2000 }, () => backoffDelayMs(3, policy, random));
    expect(Math.min(...delays)).toBeLessThan(10);
    expect(Math.max(...delays)).toBeGreaterThan(390);
    expect(delays.reduce((sum, delay) => sum + delay) / delays.length).toBeCloseTo(200, -1.3);
  });

  it('tries exactly attemptsMax times and throws the last error unchanged', async () => {
    await fc.assert(
      fc.asyncProperty(policies, fc.integer(), async (policy, seed) => {
        const clock = virtualClock();
        const errors: Error[] = [];
        const operation = async () => {
          errors.push(new Error(`failure ${errors.length}`));
          throw errors.at(-1);
        };
        const outcome = retry(operation, { policy, classify: yes }, { clock, random: new RandomStream(seed) });
        const thrown = await outcome.catch((error: unknown) => error);
        expect(thrown).toBe(errors.at(-1));
        expect(errors).toHaveLength(policy.attemptsMax);
        expect(clock.slept).toHaveLength(policy.attemptsMax - 1);
      }),
    );
  });

  it('never sleeps past the deadline', async () => {
    await fc.assert(
      fc.asyncProperty(policies, fc.integer(), fc.integer({ min: 0, max: 10_000 }), async (policy, seed, budgetMs) => {
        const clock = virtualClock();
        const deadlineAtMs = clock.now() + budgetMs;
        await expect(
          retry(failing, { policy, classify: yes, deadlineAtMs }, { clock, random: new RandomStream(seed) }),
        ).rejects.toThrow('down');
        expect(clock.now()).toBeLessThanOrEqual(deadlineAtMs);
      }),
    );
  });

  it('returns the first success and reports each repetition', async () => {
    const events: unknown[] = [];
    const result = await retry(
      async (failures) => (failures < 3 ? failing() : `after ${failures}`),
      {
        policy: { attemptsMax: 5, delayBaseMs: 10, delayMaxMs: 100 },
        classify: () => ({ retry: true, reason: 'down', delayMinMs: 7000 }),
        onRetry: ({ failures, reason, delayMs }) => events.push({ failures, reason, waited: delayMs >= 7000 }),
      },
      { clock: virtualClock(), random: new RandomStream(1) },
    );
    expect(result).toBe('after 3');
    expect(events).toEqual([1, 2, 3].map((failures) => ({ failures, reason: 'down', waited: true })));
  });

  it('does not repeat what the classifier calls final', async () => {
    let calls = 0;
    const operation = async () => {
      calls++;
      return failing();
    };
    const options = {
      policy: { attemptsMax: 5, delayBaseMs: 1, delayMaxMs: 1 },
      classify: () => ({ retry: false, reason: 'final' }),
    };
    await expect(retry(operation, options, { clock: virtualClock(), random: new RandomStream(1) })).rejects.toThrow(
      'down',
    );
    expect(calls).toBe(1);
  });

  it('counts failures anew after an attempt that got somewhere', async () => {
    let calls = 0;
    const operation = async () => {
      calls++;
      throw new CoveyError('UNAVAILABLE', 'down', { fields: { progressed: calls <= 10 } });
    };
    const classify = (error: unknown) => ({
      retry: true,
      reason: 'x',
      progressed: CoveyError.is(error) && error.fields['progressed'] === true,
    });
    const policy = { attemptsMax: 3, delayBaseMs: 1, delayMaxMs: 1 };
    await expect(
      retry(operation, { policy, classify }, { clock: virtualClock(), random: new RandomStream(1) }),
    ).rejects.toThrow('down');
    expect(calls).toBe(12);
  });

  it('stops with CANCELLED when aborted during a pause', async () => {
    const controller = new AbortController();
    const clock = virtualClock();
    const sleep = clock.sleep;
    clock.sleep = async (durationMs, signal) => {
      controller.abort();
      return sleep(durationMs, signal);
    };
    const options = {
      policy: { attemptsMax: 5, delayBaseMs: 1, delayMaxMs: 1 },
      classify: yes,
      signal: controller.signal,
    };
    await expect(retry(failing, options, { clock, random: new RandomStream(1) })).rejects.toMatchObject({
      code: 'CANCELLED',
    });
  });
});
