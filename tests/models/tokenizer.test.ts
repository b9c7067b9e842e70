import { readFile } from 'node:fs/promises';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { trainBpe } from '../../models/tokenizer/bpe-trainer.ts';
import { cleanCaption } from '../../models/tokenizer/clean-text.ts';
import { loadTokenizer, type Tokenizer } from '../../models/tokenizer/tokenizer.ts';

interface Fixture {
  readonly cases: readonly { readonly text: string; readonly ids: readonly number[] }[];
}

const withoutPadding = (ids: Int32Array, eosId: number) => [...ids.subarray(0, ids.indexOf(eosId) + 1)];

describe("CLIP's own vocabulary", () => {
  let tokenizer: Tokenizer;
  let fixture: Fixture;
  beforeAll(async () => {
    tokenizer = await loadTokenizer('clip', 77);
    fixture = JSON.parse(await readFile(new URL('fixtures/clip-tokens.json', import.meta.url), 'utf8'));
  });

  it('has 49,408 tokens and the known start and end', () => {
    expect([tokenizer.vocabSize, tokenizer.bosId, tokenizer.eosId]).toEqual([49_408, 49_406, 49_407]);
  });

  it('encodes "a photo of a cat" as every CLIP does, padded with 0', () => {
    const ids = tokenizer.encode('a photo of a cat');
    expect([...ids.subarray(0, 9)]).toEqual([49406, 320, 1125, 539, 320, 2368, 49407, 0, 0]);
    expect(ids.length).toBe(77);
  });

  it("gives open_clip's ids for every text of the fixture", () => {
    for (const { text, ids } of fixture.cases) {
      const padded = [...ids, ...new Array(77 - ids.length).fill(0)];
      expect([...tokenizer.encode(text)], JSON.stringify(text)).toEqual(padded);
    }
  });

  it('cuts a long caption and ends it with the end token', async () => {
    const short = await loadTokenizer('clip', 5);
    expect([...short.encode('a photo of a cat')]).toEqual([49406, 320, 1125, 539, 49407]);
    expect([...short.encode('a photo of')]).toEqual([49406, 320, 1125, 539, 49407]);
  });

  it('writes the files transformers reads, with 48,894 merges', () => {
    const files = tokenizer.files();
    expect(Object.keys(files).sort()).toEqual([
      'merges.txt',
      'special_tokens_map.json',
      'tokenizer.json',
      'tokenizer_config.json',
      'vocab.json',
    ]);
    const merges = files['merges.txt']!.trimEnd().split('\n');
    expect(merges[0]).toBe('#version: 0.2');
    expect(merges.slice(1, 4)).toEqual(['i n', 't h', 'a n']);
    expect(merges).toHaveLength(48_895);
    expect(JSON.parse(files['vocab.json']!)['<|endoftext|>']).toBe(49_407);
  });
});

describe('a trained vocabulary', () => {
  const captions = [
    'red apple',
    'green apple',
    'apple pie',
    'red panda',
    'grinning face',
    'face with tears',
    'grinning cat',
  ];

  it('merges the most frequent pairs, by hand on a small corpus', () => {
    // Words: low ×3, lower ×1. Pairs: l-o 4, o-w</w> 3, o-w 1, w-e 1, e-r</w> 1.
    const json = JSON.parse(trainBpe(['low low', 'low lower'], { vocabSize: 1000, minCount: 2 }));
    expect(json.model.merges).toEqual(['l o', 'lo w</w>']);
    expect(json.model.vocab['low</w>']).toBe(513);
    expect(json.model.vocab['<|startoftext|>']).toBe(514);
    expect(json.model.vocab['<|endoftext|>']).toBe(515);
  });

  it('stops at the vocabulary asked for, with start and end as the two largest ids', async () => {
    const tokenizer = await loadTokenizer(trainBpe(captions, { vocabSize: 520 }), 16);
    expect([tokenizer.vocabSize, tokenizer.bosId, tokenizer.eosId]).toEqual([520, 518, 519]);
  });

  it('does not depend on the order of the captions', () => {
    const reversed = trainBpe(captions.toReversed(), { vocabSize: 540 });
    expect(reversed).toBe(trainBpe(captions, { vocabSize: 540 }));
  });

  it('makes one token of a word it has seen often, and spells out what it has not seen', async () => {
    const tokenizer = await loadTokenizer(trainBpe(captions, { vocabSize: 700 }), 16);
    expect(withoutPadding(tokenizer.encode('Apple'), tokenizer.eosId)).toHaveLength(3);
    expect(withoutPadding(tokenizer.encode('zzz'), tokenizer.eosId)).toHaveLength(5);
    expect(withoutPadding(tokenizer.encode('猫'), tokenizer.eosId)).toHaveLength(5);
  });

  it('encodes as the definition says: repeatedly the pair of lowest rank', async () => {
    const json = trainBpe(captions, { vocabSize: 560 });
    const tokenizer = await loadTokenizer(json, 64);
    const { vocab, merges } = JSON.parse(json).model as { vocab: Record<string, number>; merges: string[] };
    fc.assert(
      fc.property(fc.stringMatching(/^[a-z]{1,12}$/), (word) => {
        let symbols = [...word.slice(0, -1), `${word.at(-1)}</w>`];
        for (;;) {
          const ranks = symbols.slice(1).map((right, i) => merges.indexOf(`${symbols[i]} ${right}`));
          const best = Math.min(...ranks.filter((rank) => rank >= 0));
          if (!Number.isFinite(best)) break;
          const at = ranks.indexOf(best);
          symbols = symbols.toSpliced(at, 2, symbols[at]! + symbols[at + 1]!);
        }
        const expected = symbols.map((symbol) => vocab[symbol]);
        expect(withoutPadding(tokenizer.encode(word), tokenizer.eosId).slice(1, -1)).toEqual(expected);
      }),
      { numRuns: 200 },
    );
  });

  it('never gives an id outside the vocabulary, whatever the text', async () => {
    const tokenizer = await loadTokenizer(trainBpe(captions, { vocabSize: 560 }), 16);
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 40 }), (text) => {
        const ids = tokenizer.encode(text);
        expect(ids.every((id) => id >= 0 && id < tokenizer.vocabSize)).toBe(true);
        expect(ids.includes(tokenizer.eosId)).toBe(true);
      }),
      { numRuns: 50 },
    );
  });

  it('has the same hash for the same tokens and another for others', async () => {
    const a = await loadTokenizer(trainBpe(captions, { vocabSize: 520 }), 16);
    const b = await loadTokenizer(trainBpe(captions, { vocabSize: 520 }), 8);
    const c = await loadTokenizer(trainBpe(captions, { vocabSize: 521 }), 16);
    expect(a.sha256).toBe(b.sha256);
    expect(a.sha256).not.toBe(c.sha256);
  });

  it('refuses a vocabulary that cannot hold the bytes, a text that is no tokenizer, and an end token that is not the largest id', async () => {
    expect(() => trainBpe([], { vocabSize: 513 })).toThrow(/at least 514.*got 513/);
    await expect(loadTokenizer('not json', 16)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(loadTokenizer('{"model":{"type":"WordPiece"}}', 16)).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
    const json = JSON.parse(trainBpe(captions, { vocabSize: 560 }));
    json.model.vocab.later = 9000;
    await expect(loadTokenizer(JSON.stringify(json), 16)).rejects.toMatchObject({ code: 'UNSUPPORTED' });
  });
});

describe('cleaning', () => {
  it('unescapes twice, straightens quotes, collapses whitespace and lowers', () => {
    expect(cleanCaption('  A&amp;amp;B \n “It’s”\tﬁne  ')).toBe('a&b "it\'s" fine');
  });
});
