import type { RunConfig } from '../../common/config/run-config.ts';

/** Lanes of up to so many samples were measured (bench/README.md, two workers with one). */
const SMALL_LANE = 8;

/**
 * What to change where a worker on a CPU has more threads than its lanes can use: products of a few samples are too small to be shared out, while
 * two workers share nothing but the gradient. Undefined where nothing is to be said.
 * @param workers how many the run has, all on machines like this one
 */
export function threadHint(
  { train }: Pick<RunConfig, 'train'>,
  { threads, workers, onGpu }: { readonly threads: number; readonly workers: number; readonly onGpu: boolean },
): string | undefined {
  const laneBatch = train.globalBatch / train.lanes;
  if (onGpu || threads < 2 || laneBatch > SMALL_LANE || workers >= train.lanes) return undefined;
  return `lanes of ${laneBatch} samples are small for workers of ${threads} threads: more workers of one thread each are faster, up to ${train.lanes} (docs/operations.md)`;
}
