import { describe, expect, it } from 'vitest';
import { checkedTemplates, parseTemplates } from '../../../transfer/zero-shot/template-file.ts';
import { TEMPLATE_SETS } from '../../../transfer/zero-shot/template-sets.ts';

describe('a file of templates', () => {
  it('has one per line, whatever ends the lines; blank ones and comments are left out', () => {
    const text = '\uFEFF# mine\r\na photo of a {}.\r\n\r\n  the {} of all {}  \n{}\n';
    expect(parseTemplates(text, 'mine.txt')).toEqual(['a photo of a {}.', 'the {} of all {}', '{}']);
  });

  it('may be a Python list as open_clip and OpenAI write theirs', () => {
    const lambdas = `
# from somewhere
IMAGENET_TEMPLATES = (
    lambda c: f'a bad photo of a {c}.',
    lambda c: f"the {c}'s picture",  # a comment
    lambda name: f'a {name} it\\'s',
)
`;
    expect(parseTemplates(lambdas, 'a.py')).toEqual(['a bad photo of a {}.', "the {}'s picture", "a {} it's"]);
    const strings = `templates = [\n  'a photo of a {}.',\n  "a sketch of the {c}."\n]`;
    expect(parseTemplates(strings, 'b.py')).toEqual(['a photo of a {}.', 'a sketch of the {}.']);
    expect(parseTemplates(`["{}", 'a {}, seen', lambda x: f'one {x}']`, 'c.py')).toEqual([
      '{}',
      'a {}, seen',
      'one {}',
    ]);
    expect(parseTemplates(`lambda c: f'a {c}.',\nlambda c: f'the {c}.',`, 'd.py')).toEqual(['a {}.', 'the {}.']);
  });

  it.each([
    [
      'a line without a place for the class',
      'a {}\na photo of a cat\n',
      /mine.txt, line 2: it has no \{\} for the class: "a photo/,
    ],
    ['a name in braces where there are no lambdas', 'a {c}', /line 1: it has no \{\}/],
    ['other braces', 'a {} of {kind}', /line 1: only \{\} may stand in braces/],
    ['the same twice', 'a {}\nthe {}\na {}', /line 3: "a \{\}" is there already \(mine.txt, line 1\)/],
    ['nothing in it', '\n# nothing\n\n', /there is no template in it; write one per line/],
    ['an empty list', 'T = [\n]\n', /there is no template in it/],
    ['bytes that are no text', 'a {}\0', /it is not text/],
    ['control characters', 'a \u001b[2J{}', /it has control characters/],
    ['a line without end', `${'x'.repeat(5000)} {}`, /line 1: it has 5003 characters, 1000 are the most: "x{60}…"/],
    [
      'code between the templates',
      "T = [\n lambda c: f'a {c}',\n __import__('os').system('rm {}'),\n]",
      /line 3: it is neither a string nor lambda/,
    ],
    ['a call in an f-string', "lambda c: f'a {c.upper()}'", /line 1: it has no \{\}|only \{\} may stand/],
    ['a format in an f-string', "lambda c: f'a {c!r} {c}'", /only \{\} may stand in braces/],
    ['another name than the argument', "lambda c: f'a {d}'", /\{d\} is not the lambda's argument c/],
    ['a method called on a string', "lambda c: 'a {}'.format(c)", /line 1: it is neither a string/],
    ['doubled braces', "lambda c: f'{{}} {c}'", /only \{\} may stand in braces/],
    ['an escape', "lambda c: f'a\\n{c}'", /may be escaped/],
    ['a string that does not end', "lambda c: f'a {c}.,", /its string does not end/],
  ])('is refused, naming the line, with %s', (_, text, message) => {
    expect(() => parseTemplates(text, 'mine.txt')).toThrow(message);
  });

  it('takes no time over a line made to be slow', () => {
    const slow = `'${' '.repeat(200_000)}x`;
    expect(() => parseTemplates(slow, 'slow.txt')).toThrow(/characters/);
  });
});

describe('the named sets', () => {
  it('hold usable templates, none twice; OpenAI’s has 80, and its seven are among them', () => {
    for (const [name, templates] of Object.entries(TEMPLATE_SETS)) {
      expect(checkedTemplates(templates.map((template) => ({ template, place: name })))).toEqual(templates);
    }
    expect(TEMPLATE_SETS['openai-80']).toHaveLength(80);
    expect(TEMPLATE_SETS['openai-7']).toHaveLength(7);
    for (const template of TEMPLATE_SETS['openai-7']!) expect(TEMPLATE_SETS['openai-80']).toContain(template);
  });
});
