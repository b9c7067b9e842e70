import type { Clock } from './clock.ts';
import { throwIfAborted } from './errors.ts';
import type { RandomStream } from './random.ts';

/** How often and how patiently. Delays follow "full jitter": uniform in [0, min(delayMaxMs, delayBaseMs · 2^failures)). */
export interface RetryPolicy {
  /** Attempts in all, the first one included. */
  readonly attemptsMax: number;
  readonly delayBaseMs: number;
  readonly delayMaxMs: number;
}

/** What a failure means: `retry: false` ends it at once; `reason` is a bounded word for metrics. */
export interface RetryVerdict {
  readonly retry: boolean;
  readonly reason: string;
  /** The server asked for at least this pause (Retry-After). */
  readonly delayMinMs?: number;
  /** The attempt got somewhere (bytes that are kept) before it failed: count failures anew. The deadline still holds. */
  readonly progressed?: boolean;
}

export interface RetryEvent {
  /** Failures in a row, this one included. */
  readonly failures: number;
  readonly delayMs: number;
  readonly reason: string;
  readonly error: unknown;
}

export interface RetryOptions {
  readonly policy: RetryPolicy;
  readonly classify: (error: unknown) => RetryVerdict;
  /** No attempt starts, and no pause ends, after this time (Clock milliseconds). */
  readonly deadlineAtMs?: number;
  readonly signal?: AbortSignal;
  readonly onRetry?: (event: RetryEvent) => void;
}

export interface RetryModules {
  readonly clock: Clock;
  readonly random: Pick<RandomStream, 'uniform'>;
}

/** Pause after the n-th failure (n ≥ 1), milliseconds. "Exponential Backoff And Jitter", AWS Architecture Blog 2015: full jitter. */
export function backoffDelayMs(failures: number, policy: RetryPolicy, random: Pick<RandomStream, 'uniform'>): number {
  // 2^52 is far above any delayMaxMs, and keeps the product finite.
  const ceiling = Math.min(policy.delayMaxMs, policy.delayBaseMs * 2 ** Math.min(failures - 1, 52));
  return random.uniform(0, ceiling);
}

/**
 * Calls `operation` until it succeeds, the classifier says no, the attempts or the deadline run out, or the signal aborts. Throws
 * the operation's last error unchanged, or the signal's reason as a CoveyError (CANCELLED). `operation` gets the number of
 * failures so far; it bounds each attempt itself.
 */
export async function retry<T>(
  operation: (failures: number) => Promise<T>,
  options: RetryOptions,
  modules: RetryModules,
): Promise<T> {
  const { policy, signal, deadlineAtMs = Number.POSITIVE_INFINITY } = options;
  for (let failures = 0; ; ) {
    throwIfAborted(signal);
    try {
      return await operation(failures);
    } catch (error) {
      throwIfAborted(signal);
      const verdict = options.classify(error);
      failures = verdict.progressed ? 1 : failures + 1;
      if (!verdict.retry || failures >= policy.attemptsMax) throw error;
      const delayMs = Math.max(backoffDelayMs(failures, policy, modules.random), verdict.delayMinMs ?? 0);
      if (modules.clock.now() + delayMs >= deadlineAtMs) throw error;
      options.onRetry?.({ failures, delayMs, reason: verdict.reason, error });
      await sleepOrThrow(delayMs, modules.clock, signal);
    }
  }
}

async function sleepOrThrow(delayMs: number, clock: Clock, signal: AbortSignal | undefined): Promise<void> {
  try {
    await clock.sleep(delayMs, signal);
  } catch (error) {
    throwIfAborted(signal);
    throw error;
  }
}
