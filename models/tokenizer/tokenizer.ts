import { createHash } from 'node:crypto';
import { Tokenizer as HfTokenizer } from '@huggingface/tokenizers';
import { z } from 'zod';
import { CoveyError } from '../../common/errors.ts';
import { END_OF_TEXT, START_OF_TEXT, tokenizerJson } from './bpe-vocabulary.ts';
import { cleanCaption } from './clean-text.ts';
import { clipVocabulary } from './clip-vocabulary.ts';

/** Turns captions into ids for the text tower. Immutable and cheap to share within a thread. */
export interface Tokenizer {
  readonly contextLength: number;
  readonly vocabSize: number;
  readonly bosId: number;
  /** The largest id, which is where the text tower reads the feature. */
  readonly eosId: number;
  /** Of tokenizer.json: equal hashes mean equal ids for every text. */
  readonly sha256: string;
  /** `clip` for the vocabulary of the OpenAI models, which other libraries bring along; `file` for one that must travel with the model. */
  readonly vocabulary: 'clip' | 'file';
  /** `contextLength` ids: start, tokens, end, then 0; a longer caption is cut and its last id is the end token. */
  encode(text: string): Int32Array;
  /** Ids of the whole text, start and end counted: more than `contextLength` where `encode` cuts it. */
  lengthOf(text: string): number;
  /** The files transformers and open_clip read, name → content. */
  files(): Record<string, string>;
}

const tokenizerJsonSchema = z.object({
  added_tokens: z.array(z.object({ id: z.int().min(0), content: z.string() })),
  model: z.object({
    type: z.literal('BPE'),
    vocab: z.record(z.string(), z.int().min(0)),
    merges: z.array(z.union([z.string(), z.tuple([z.string(), z.string()])])),
  }),
});

type TokenizerJson = z.infer<typeof tokenizerJsonSchema>;

/**
 * Opens a tokenizer.
 * @param source `clip` for the 49,408 tokens of the OpenAI models, or the text of a tokenizer.json (as `trainBpe` writes it)
 * @throws CoveyError INVALID_ARGUMENT for JSON that is not such a tokenizer, UNSUPPORTED for one whose end token is not the largest id
 */
export async function loadTokenizer(source: string, contextLength: number): Promise<Tokenizer> {
  if (!Number.isInteger(contextLength) || contextLength < 3) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot load a tokenizer: contextLength must be at least 3: got ${contextLength}`,
    );
  }
  if (source === 'clip') return new BpeTokenizer(tokenizerJson(await clipVocabulary()), contextLength, 'clip');
  return new BpeTokenizer(source, contextLength, 'file');
}

class BpeTokenizer implements Tokenizer {
  readonly contextLength: number;
  readonly vocabSize: number;
  readonly bosId: number;
  readonly eosId: number;
  readonly sha256: string;
  readonly vocabulary: 'clip' | 'file';
  readonly #json: string;
  readonly #parsed: TokenizerJson;
  readonly #encoder: HfTokenizer;

  constructor(json: string, contextLength: number, vocabulary: 'clip' | 'file') {
    this.vocabulary = vocabulary;
    this.#json = json;
    const { parsed, raw } = parseTokenizerJson(json);
    this.#parsed = parsed;
    const added = new Map(parsed.added_tokens.map(({ content, id }) => [content, id]));
    const idOf = (token: string) => added.get(token) ?? parsed.model.vocab[token];
    const bosId = idOf(START_OF_TEXT);
    const eosId = idOf(END_OF_TEXT);
    const largest = Object.values(parsed.model.vocab).reduce((a, b) => Math.max(a, b), Math.max(...added.values(), -1));
    if (bosId === undefined || eosId !== largest) {
      throw new CoveyError(
        'UNSUPPORTED',
        `Cannot load the tokenizer: it needs ${START_OF_TEXT} and, as its largest id, ${END_OF_TEXT}: they are ${bosId} and ${eosId} of ${largest}; train one with trainBpe or use 'clip'`,
        { fields: { bosId, eosId, largest } },
      );
    }
    this.contextLength = contextLength;
    this.vocabSize = largest + 1;
    this.bosId = bosId;
    this.eosId = eosId;
    this.sha256 = createHash('sha256').update(json).digest('hex');
    // Without the special tokens: a caption that contains their names is spelt out, as open_clip does, and cannot end itself.
    this.#encoder = new HfTokenizer({ ...raw, added_tokens: [] }, this.#tokenizerConfig());
  }

  encode(text: string): Int32Array {
    const ids = this.#idsOf(text);
    const out = new Int32Array(this.contextLength);
    const kept = Math.min(ids.length, this.contextLength - 2);
    out[0] = this.bosId;
    for (let i = 0; i < kept; i++) out[i + 1] = ids[i]!;
    out[kept + 1] = this.eosId;
    return out;
  }

  lengthOf(text: string): number {
    return this.#idsOf(text).length + 2;
  }

  #idsOf(text: string): readonly number[] {
    return this.#encoder.encode(cleanCaption(text), { add_special_tokens: false }).ids;
  }

  files(): Record<string, string> {
    const { vocab, merges } = this.#parsed.model;
    const mergeLines = merges.map((merge) => (typeof merge === 'string' ? merge : merge.join(' ')));
    const pretty = (value: unknown) => `${JSON.stringify(value, null, 2)}\n`;
    return {
      'tokenizer.json': this.#json,
      'vocab.json': JSON.stringify(vocab),
      'merges.txt': `${['#version: 0.2', ...mergeLines].join('\n')}\n`,
      'tokenizer_config.json': pretty(this.#tokenizerConfig()),
      'special_tokens_map.json': pretty(SPECIAL_TOKENS),
    };
  }

  /** As in openai/clip-vit-base-patch32; padding with the end token is what transformers expects and the causal mask ignores. */
  #tokenizerConfig() {
    return {
      tokenizer_class: 'CLIPTokenizer',
      ...SPECIAL_TOKENS,
      model_max_length: this.contextLength,
      do_lower_case: true,
      errors: 'replace',
      add_prefix_space: false,
      clean_up_tokenization_spaces: true,
    };
  }
}

const SPECIAL_TOKENS = {
  bos_token: START_OF_TEXT,
  eos_token: END_OF_TEXT,
  unk_token: END_OF_TEXT,
  pad_token: END_OF_TEXT,
};

function parseTokenizerJson(json: string): { parsed: TokenizerJson; raw: object } {
  let raw: unknown;
  try {
    raw = JSON.parse(json);
  } catch (error) {
    throw new CoveyError('INVALID_ARGUMENT', `Cannot load the tokenizer: it is not JSON: ${json.slice(0, 40)}…`, {
      cause: error,
    });
  }
  const result = tokenizerJsonSchema.safeParse(raw);
  if (!result.success) {
    const problems = result.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`);
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot load the tokenizer: it is not a BPE tokenizer.json: ${problems.join('; ')}`,
      {
        fields: { problems },
      },
    );
  }
  return { parsed: result.data, raw: raw as object };
}
