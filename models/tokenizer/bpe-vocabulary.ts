/**
 * What a CLIP-style byte-level BPE consists of: the byte alphabet, the word pattern, the order of the vocabulary, and the tokenizer.json
 * that says all of it. Trained and original vocabularies share this form.
 */

export const START_OF_TEXT = '<|startoftext|>';
export const END_OF_TEXT = '<|endoftext|>';
export const END_OF_WORD = '</w>';

/** Words of cleaned text (open_clip `tokenizer.py`, without the special tokens). */
export const WORD_PATTERN = "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+";

export interface BpeVocabulary {
  /** Token by id: 256 bytes, 256 bytes ending a word, merged tokens in merge order, start, end. */
  readonly tokens: readonly string[];
  /** Pairs in order of rank. */
  readonly merges: readonly (readonly [string, string])[];
}

/** GPT-2's `bytes_to_unicode`: a printable character for each byte, in vocabulary order (printable bytes first). */
export const byteAlphabet: readonly { readonly byte: number; readonly character: string }[] = (() => {
  const isPrintable = (b: number) => (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
  const bytes = Array.from({ length: 256 }, (_, b) => b);
  const printable = bytes.filter(isPrintable).map((byte) => ({ byte, character: String.fromCharCode(byte) }));
  const others = bytes
    .filter((b) => !isPrintable(b))
    .map((byte, i) => ({ byte, character: String.fromCharCode(256 + i) }));
  return [...printable, ...others];
})();

/** The 512 tokens every vocabulary begins with. */
export function baseTokens(): string[] {
  const characters = byteAlphabet.map(({ character }) => character);
  return [...characters, ...characters.map((character) => character + END_OF_WORD)];
}

/** The tokenizer.json of a vocabulary, with the parts and settings of transformers' CLIPTokenizerFast. */
export function tokenizerJson({ tokens, merges }: BpeVocabulary): string {
  const startId = tokens.length - 2;
  const endId = tokens.length - 1;
  const special = (id: number, content: string, normalized: boolean) => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized,
    special: true,
  });
  return JSON.stringify({
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: [special(startId, START_OF_TEXT, true), special(endId, END_OF_TEXT, false)],
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'NFC' },
        { type: 'Replace', pattern: { Regex: '\\s+' }, content: ' ' },
        { type: 'Lowercase' },
      ],
    },
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        { type: 'Split', pattern: { Regex: WORD_PATTERN }, behavior: 'Removed', invert: true },
        { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true },
      ],
    },
    post_processor: {
      type: 'RobertaProcessing',
      sep: [END_OF_TEXT, endId],
      cls: [START_OF_TEXT, startId],
      trim_offsets: false,
      add_prefix_space: false,
    },
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: END_OF_TEXT,
      continuing_subword_prefix: '',
      end_of_word_suffix: END_OF_WORD,
      fuse_unk: false,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: merges.map((pair) => pair.join(' ')),
    },
  });
}
