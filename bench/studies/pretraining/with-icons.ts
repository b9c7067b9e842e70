import { availableParallelism } from 'node:os';
import path from 'node:path';
import { type Engine, loadEngine } from '../../../engine/index.ts';
import { numberOption } from '../../support/number-option.ts';
import { type IconPictures, openIconPictures } from './icon-pictures.ts';

/** What `npm run study -- NAME` hands to every study. */
export interface StudyOptions {
  readonly quick: boolean;
  readonly json: boolean;
  /** Of pretraining; what is usual without is the study's to say. */
  readonly seconds?: string;
  /** Names of what is compared, or parts of them, with commas. Default: all. */
  readonly only?: string;
  readonly threads?: string;
  readonly seed?: string;
}

export interface Study {
  readonly engine: Engine;
  readonly icons: IconPictures;
  readonly seconds: number | undefined;
  readonly seed: number;
}

/** Where drawings are rendered, once. */
const WORK_DIR = '.covey/studies';

/** Opens what every study needs, for as long as `work` takes. @param heldOut the artist whom nothing learns from. Default: the demo's */
export async function withIcons<T>(
  options: StudyOptions,
  work: (study: Study) => Promise<T>,
  heldOut?: string,
): Promise<T> {
  const seconds = numberOption(options.seconds, 'seconds');
  const threads = numberOption(options.threads, 'threads') ?? availableParallelism();
  const seed = numberOption(options.seed, 'seed') ?? 0;
  const engine = await loadEngine({ engine: 'auto', threads });
  try {
    const icons = await openIconPictures(path.resolve(WORK_DIR), heldOut);
    try {
      return await work({ engine, icons, seconds, seed });
    } finally {
      await icons.close();
    }
  } finally {
    engine.close();
  }
}
