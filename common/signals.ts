import { CoveyError } from './errors.ts';

export interface ShutdownSignal {
  /** Aborted by the first SIGINT or SIGTERM, with a CANCELLED error whose `fields.signal` names it. */
  readonly signal: AbortSignal;
  /** Stops listening. */
  dispose(): void;
}

/** The shell's exit code for a process ended by SIGINT. */
const EXIT_INTERRUPTED = 130;

/**
 * The first SIGINT or SIGTERM asks for an orderly end, the second exits at once with 130: a person who presses Ctrl-C twice
 * means it. `onFirst` may tell them so.
 */
export function listenForShutdown(onFirst?: (signal: NodeJS.Signals) => void): ShutdownSignal {
  const controller = new AbortController();
  const onSignal = (signal: NodeJS.Signals) => {
    if (controller.signal.aborted) process.exit(EXIT_INTERRUPTED);
    onFirst?.(signal);
    controller.abort(new CoveyError('CANCELLED', `${signal} received`, { fields: { signal } }));
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  return {
    signal: controller.signal,
    dispose: () => {
      process.off('SIGINT', onSignal);
      process.off('SIGTERM', onSignal);
    },
  };
}
