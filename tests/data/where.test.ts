import { describe, expect, it } from 'vitest';
import { SampleFilter } from '../../worker/data/filter/sample-filter.ts';
import { parseWhere, type Row } from '../../worker/data/filter/where.ts';

const row: Row = {
  width: 640,
  height: 480,
  similarity: 0.31,
  LANGUAGE: 'en',
  NSFW: null,
  punsafe: Number.NaN,
  n: 7n,
  ok: true,
  tags: ['a'],
};

function holds(text: string, of: Row = row): boolean | null {
  return parseWhere(text).clauses.reduce<boolean | null>((all, clause) => {
    const one = clause.test(of);
    return all === false || one === false ? false : all === null || one === null ? null : all && one;
  }, true);
}

describe('parseWhere', () => {
  it.each([
    ['width >= 256 and similarity > 0.3 and LANGUAGE == "en"', true],
    ["LANGUAGE = 'en' && width <> 3", true],
    ['width < 256 or height == 480', true],
    ['LANGUAGE in ["de", "fr"]', false],
    ['LANGUAGE in ("en", "fr") and n == 7', true],
    ['not (width > 1000)', true],
    ['width / height < 1.5 and width * height >= 640 * 480 and width % 2 == 0 and -width < -1', true],
    [
      'lower(LANGUAGE) == "en" and length(LANGUAGE) == 2 and contains(LANGUAGE, "n") and startsWith(LANGUAGE, "e")',
      true,
    ],
    ['number("12") == n + 5 and text(n) == "7"', true],
    ['ok and ok != false', true],
    ['has(width) and not has(NSFW) and not has(nothing)', true],
    ['width > 256 and height > 1000 or ok', true],
  ])('%s → %s', (text, expected) => {
    expect(holds(text)).toBe(expected);
  });

  it('takes missing values as SQL does: unknown, unless the rest decides', () => {
    expect(holds('NSFW == "UNLIKELY"')).toBeNull();
    expect(holds('punsafe < 0.5')).toBeNull();
    expect(holds('not (nothing > 3)')).toBeNull();
    expect(holds('NSFW == "x" or ok')).toBe(true);
    expect(holds('(NSFW == "x" and ok) or not ok')).toBeNull();
    expect(holds('(NSFW == "x" and width < 0) or not ok')).toBe(false);
    expect(holds('width / 0 > 3')).toBeNull();
  });

  it.each([
    ['', /is empty/],
    ['1 == 1', /names no column/],
    ['width >', /Expected/],
    ['width >= 256 similarity > 3', /not part of the language/],
    ['width = 3; height = 4', /not part of the language/],
    ['process.exit(1)', /there is no .* of 1 arguments/],
    ['this.constructor', /not part of the language/],
    ['constructor("x")', /there is no constructor of 1/],
    ['width ? 1 : 2', /not part of the language|Expected/],
    ['LANGUAGE in width', /list of values/],
    ['width ** 2 > 3', /no operator|not part|Expected|Unexpected/],
    ['width | 1', /there is no operator \|/],
    [`${'('.repeat(80)}width${')'.repeat(80)} > 1 and ${'not '.repeat(80)}ok`, /nested too deeply/],
    [`width > ${'1'.repeat(3000)}`, /characters, at most/],
  ])('refuses %s', (text, reason) => {
    expect(() => parseWhere(text)).toThrow(reason);
  });

  it('reads no property that is not a column’s', () => {
    expect(holds('has(toString)')).toBe(false);
    expect(holds('has(__proto__)')).toBe(false);
  });

  it('says its clauses and columns in one spelling', () => {
    const { clauses, columns } = parseWhere("width>=256 && (LANGUAGE=='en' || LANGUAGE in ['de']) and not(ok)");
    expect(clauses.map(({ text }) => text)).toEqual([
      'width >= 256',
      'LANGUAGE == "en" or LANGUAGE in ["de"]',
      'not ok',
    ]);
    expect(columns).toEqual(['LANGUAGE', 'ok', 'width']);
  });
});

describe('SampleFilter', () => {
  it('charges each sample to the first clause that it fails, and counts what was missing', () => {
    const filter = new SampleFilter('width >= 256 and similarity > 0.3');
    const rows = [
      { width: 100, similarity: 0.1 },
      { width: 300, similarity: 0.2 },
      { width: 300, similarity: null },
      { width: 300, similarity: 0.4 },
      { width: null, similarity: 0.4 },
    ];
    expect(rows.map((one, i) => filter.keeps(one, String(i)))).toEqual([false, false, false, true, false]);
    expect(filter.report()).toEqual({
      where: 'width >= 256 and similarity > 0.3',
      kept: 1,
      dropped: 4,
      clauses: [
        { clause: 'width >= 256', dropped: 2, missing: 1 },
        { clause: 'similarity > 0.3', dropped: 2, missing: 1 },
      ],
    });
  });

  it('names a column of the wrong kind with the sample and the value', () => {
    const filter = new SampleFilter('width >= 256');
    expect(() => filter.keeps({ width: '640' }, 's7')).toThrow(
      /column width, sample s7: width >= 256: the text "640" is compared with the number 256; number\(…\)/,
    );
    expect(() => new SampleFilter('tags == "a"').keeps(row, 's')).toThrow(/column tags.*list or an object/);
    expect(() => new SampleFilter('width and ok').keeps(row, 's')).toThrow(/width: the number 640 is no condition/);
    expect(() => new SampleFilter('lower(width) == "x"').keeps(row, 's')).toThrow(/column width.*no text/);
  });

  it('names an unknown column and those that there are', () => {
    const filter = new SampleFilter('widht >= 256');
    filter.keeps({ width: 640, height: 480 }, 's');
    expect(() => filter.checkColumns()).toThrow(/no sample has a column widht; there are height, width/);
  });

  it('says which clause left nothing', () => {
    const filter = new SampleFilter('width >= 256 and similarity > 0.9');
    for (const similarity of [0.1, null]) filter.keeps({ width: 640, similarity }, 's');
    expect(() => filter.assertKept()).toThrow(
      /none of 2 samples: 0 by width >= 256; 2 by similarity > 0.9 \(1 have no value\)/,
    );
  });
});
