import { CoveyError } from '../common/errors.ts';
import { EXIT } from './exit-codes.ts';

export interface Interrupt {
  /** Aborted with CANCELLED by the first SIGINT or SIGTERM. */
  readonly signal: AbortSignal;
  /** The signals get their usual meaning back. */
  release(): void;
}

/** The first SIGINT or SIGTERM asks the command to end in order; the second ends the process at once. */
export function listenForInterrupt(): Interrupt {
  const controller = new AbortController();
  const onSignal = (name: NodeJS.Signals) => {
    if (controller.signal.aborted) process.exit(EXIT.interrupted);
    controller.abort(new CoveyError('CANCELLED', `interrupted by ${name}`));
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  return {
    signal: controller.signal,
    release() {
      process.off('SIGINT', onSignal);
      process.off('SIGTERM', onSignal);
    },
  };
}
