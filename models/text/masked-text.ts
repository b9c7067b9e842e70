import { RandomStream } from '../../common/random.ts';
import type { TextBatch } from '../clip/text-tower.ts';

/** Captions of which some tokens are to be guessed. B captions of T tokens, M guesses. */
export interface MaskedText {
  /** [B·T], with what was replaced. */
  readonly ids: Int32Array;
  readonly batch: number;
  readonly tokens: number;
  /** Tokens of each caption, its start and end included; what follows is padding. */
  readonly lengths: Int32Array;
  /** [B·T]: 1 where the token itself is hidden. */
  readonly hidden: Float32Array;
  /** Of each guess: its place among the B·T tokens, and what stood there. Never none: see `weights`. */
  readonly places: Int32Array;
  readonly targets: Int32Array;
  /** [M]: 1; 0 for the one entry of captions without a single word. */
  readonly weights: Float32Array;
}

/** Of the tokens to be guessed (Devlin et al. 2019, §3.1). */
const HIDDEN = 0.8;
const REPLACED = 0.1;

/**
 * BERT's cloze (Devlin et al. 2019, §3.1; `create_pretraining_data.py`): of each caption's tokens between start and end a fixed share, at
 * least one, is to be guessed. Of those 80 % are hidden, 10 % are replaced by any token of the vocabulary, 10 % stay. Drawn from the
 * caption's seed, so that it does not depend on who computes it or beside which others.
 */
export function maskText(
  { ids: plain, batch, tokens, ends }: TextBatch,
  seeds: Uint32Array,
  { maskRatio, vocabSize }: { readonly maskRatio: number; readonly vocabSize: number },
): MaskedText {
  const ids = plain.slice();
  const hidden = new Float32Array(ids.length);
  const places: number[] = [];
  for (let row = 0; row < batch; row++) {
    const random = new RandomStream('cloze', seeds[row]!);
    const words = Math.max(0, ends[row]! - 1);
    const guesses = words === 0 ? 0 : Math.max(1, Math.round(maskRatio * words));
    for (const word of drawn(words, guesses, random)) {
      const place = row * tokens + 1 + word;
      places.push(place);
      const draw = random.uniform();
      if (draw < HIDDEN) hidden[place] = 1;
      else if (draw < HIDDEN + REPLACED) ids[place] = random.integer(vocabSize);
    }
  }
  const weight = places.length === 0 ? 0 : 1;
  if (places.length === 0) places.push(0);
  return {
    ids,
    batch,
    tokens,
    lengths: ends.map((end) => end + 1),
    hidden,
    places: Int32Array.from(places),
    targets: Int32Array.from(places, (place) => plain[place]!),
    weights: new Float32Array(places.length).fill(weight),
  };
}

/** `count` of 0 … n − 1 without repetition, ascending: the first of a shuffle (Fisher & Yates). */
function drawn(n: number, count: number, random: RandomStream): number[] {
  const all = Array.from({ length: n }, (_, i) => i);
  for (let i = 0; i < count; i++) {
    const other = i + random.integer(n - i);
    [all[i], all[other]] = [all[other]!, all[i]!];
  }
  return all.slice(0, count).sort((a, b) => a - b);
}
