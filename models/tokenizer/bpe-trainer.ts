import { CoveyError } from '../../common/errors.ts';
import {
  type BpeVocabulary,
  baseTokens,
  byteAlphabet,
  END_OF_TEXT,
  START_OF_TEXT,
  tokenizerJson,
  WORD_PATTERN,
} from './bpe-vocabulary.ts';
import { cleanCaption } from './clean-text.ts';
import { MaxHeap } from './max-heap.ts';

export interface BpeTrainingOptions {
  /** Largest number of tokens, the 514 fixed ones included. Fewer result when the captions have too few pairs. */
  readonly vocabSize: number;
  /** A pair seen less often is not merged. Default 2. */
  readonly minCount?: number;
}

const FIXED_TOKENS = 514;

/**
 * Trains a byte-level BPE (Sennrich et al. 2016, Algorithm 1) on captions and returns its tokenizer.json for `loadTokenizer`. The result depends on
 * the captions as a multiset only, not on their order.
 * @throws CoveyError INVALID_ARGUMENT for a vocabulary that cannot hold the fixed tokens
 */
export function trainBpe(captions: Iterable<string>, { vocabSize, minCount = 2 }: BpeTrainingOptions): string {
  if (!Number.isInteger(vocabSize) || vocabSize < FIXED_TOKENS) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot train a tokenizer: vocabSize must be a whole number of at least ${FIXED_TOKENS} (512 bytes, start, end): got ${vocabSize}`,
      { fields: { vocabSize } },
    );
  }
  return tokenizerJson(learnMerges(countWords(captions), vocabSize, minCount));
}

/** How often each word occurs; a word is its UTF-8 bytes as base-token ids, the last one marked as ending the word. */
function countWords(captions: Iterable<string>): Word[] {
  const counts = new Map<string, number>();
  const pattern = new RegExp(WORD_PATTERN, 'gu');
  for (const caption of captions) {
    for (const word of cleanCaption(caption).match(pattern) ?? []) counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  const idOfByte = new Uint16Array(256);
  for (const [id, { byte }] of byteAlphabet.entries()) idOfByte[byte] = id;
  return [...counts].map(([text, count]) => {
    const symbols = Array.from(new TextEncoder().encode(text), (byte) => idOfByte[byte]!);
    symbols[symbols.length - 1]! += 256;
    return { symbols, count };
  });
}

interface Word {
  symbols: number[];
  readonly count: number;
}

/** A pair of ids as one number that is still exact in a double. */
const PAIR_BASE = 2 ** 24;
const pairOf = (left: number, right: number) => left * PAIR_BASE + right;

function learnMerges(words: readonly Word[], vocabSize: number, minCount: number): BpeVocabulary {
  const tokens = baseTokens();
  const idOfToken = new Map(tokens.map((token, id) => [token, id]));
  const merges: [string, string][] = [];
  const table = new PairTable(words);
  while (tokens.length + 2 < vocabSize) {
    const best = table.takeMostFrequent();
    if (!best || best.count < minCount) break;
    const left = Math.floor(best.pair / PAIR_BASE);
    const right = best.pair % PAIR_BASE;
    const merged = tokens[left]! + tokens[right]!;
    merges.push([tokens[left]!, tokens[right]!]);
    // Two merges can spell the same token (a+bc, ab+c): it keeps its one id.
    let id = idOfToken.get(merged);
    if (id === undefined) {
      id = tokens.push(merged) - 1;
      idOfToken.set(merged, id);
    }
    table.merge(left, right, id);
  }
  return { tokens: [...tokens, START_OF_TEXT, END_OF_TEXT], merges };
}

/** Counts of adjacent pairs over all words, kept true while pairs are merged. */
class PairTable {
  readonly #words: readonly Word[];
  readonly #counts = new Map<number, number>();
  readonly #wordsOfPair = new Map<number, Set<number>>();
  // Entries are not removed when a count changes: an entry is valid if its count is still the pair's.
  readonly #heap = new MaxHeap<{ pair: number; count: number }>(
    (a, b) => a.count > b.count || (a.count === b.count && a.pair < b.pair),
  );

  constructor(words: readonly Word[]) {
    this.#words = words;
    for (const index of words.keys()) this.#addWord(index, 1);
    for (const [pair, count] of this.#counts) this.#heap.push({ pair, count });
  }

  /** The pair with the highest count; of equal ones that of the lowest ids. */
  takeMostFrequent(): { pair: number; count: number } | undefined {
    for (let top = this.#heap.pop(); top; top = this.#heap.pop()) {
      if (this.#counts.get(top.pair) === top.count) return top;
    }
    return undefined;
  }

  merge(left: number, right: number, id: number): void {
    const pair = pairOf(left, right);
    const changed = new Set<number>();
    for (const index of this.#wordsOfPair.get(pair) ?? []) {
      const word = this.#words[index]!;
      this.#addWord(index, -1, changed);
      word.symbols = mergedSymbols(word.symbols, left, right, id);
      this.#addWord(index, 1, changed);
    }
    this.#counts.delete(pair);
    this.#wordsOfPair.delete(pair);
    for (const other of changed) {
      const count = this.#counts.get(other) ?? 0;
      if (count > 0) this.#heap.push({ pair: other, count });
    }
  }

  /** Adds (sign 1) or takes away (−1) the pairs of one word. */
  #addWord(index: number, sign: 1 | -1, changed?: Set<number>): void {
    const { symbols, count } = this.#words[index]!;
    for (let i = 0; i + 1 < symbols.length; i++) {
      const pair = pairOf(symbols[i]!, symbols[i + 1]!);
      this.#counts.set(pair, (this.#counts.get(pair) ?? 0) + sign * count);
      changed?.add(pair);
      if (sign < 0) continue;
      const users = this.#wordsOfPair.get(pair);
      if (users) users.add(index);
      else this.#wordsOfPair.set(pair, new Set([index]));
    }
  }
}

/** The word with each (left, right), from the left, replaced by `id`. */
function mergedSymbols(symbols: readonly number[], left: number, right: number, id: number): number[] {
  const out: number[] = [];
  for (let i = 0; i < symbols.length; i++) {
    if (symbols[i] === left && symbols[i + 1] === right) {
      out.push(id);
      i++;
    } else out.push(symbols[i]!);
  }
  return out;
}
