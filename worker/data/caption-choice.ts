import type { RunConfig } from '../../common/config/run-config.ts';
import type { RandomStream } from '../../common/random.ts';
import type { IndexedSample } from './manifest.ts';

export type CaptionChoice = RunConfig['data']['captions'];

/**
 * The caption that one showing of a sample learns from; undefined where it has none. `draw` opens the showing's stream, which only a random
 * choice among several takes from.
 */
export function chooseCaption(
  { captions, captionSources }: Pick<IndexedSample, 'captions' | 'captionSources'>,
  { choose, weights }: CaptionChoice,
  draw: () => RandomStream,
): string | undefined {
  if (captions.length <= 1) return captions[0];
  switch (choose) {
    case 'first':
      return captions[0];
    case 'longest':
      // The first of equals.
      return captions.reduce((best, one) => (one.length > best.length ? one : best));
    case 'random': {
      const shares = weights && captionSources?.map((source) => weights[source] ?? 0);
      const total = shares?.reduce((sum, share) => sum + share, 0) ?? 0;
      if (shares === undefined || total === 0) return captions[draw().integer(captions.length)];
      let left = draw().uniform() * total;
      const chosen = shares.findIndex((share) => {
        left -= share;
        return left < 0;
      });
      // Rounding may leave nothing over: then it is the last that has a share.
      return captions[chosen >= 0 ? chosen : shares.findLastIndex((share) => share > 0)];
    }
  }
}
