import { describe, expect, it } from 'vitest';
import { namedClasses, parseClasses } from '../../../transfer/zero-shot/class-list.ts';

const CRANES = [
  { name: 'crane 1', descriptions: ['crane, a bird', 'a tall grey bird'] },
  { name: 'crane 2', descriptions: ['crane, a machine'] },
  { name: 'cat', descriptions: ['cat'] },
];

describe('a file of classes', () => {
  it.each([
    ['classes.txt', 'crane 1\tcrane, a bird\ta tall grey bird\r\ncrane 2\tcrane, a machine\n\ncat\n'],
    ['more-lines.txt', 'crane 1\tcrane, a bird\ncrane 2\tcrane, a machine\ncat\ncrane 1\ta tall grey bird\n'],
    ['classes.yaml', 'crane 1: ["crane, a bird", a tall grey bird]\ncrane 2: crane, a machine\ncat:\n'],
    [
      'classes.json',
      JSON.stringify([
        { name: 'crane 1', descriptions: ['crane, a bird', 'a tall grey bird'] },
        { name: 'crane 2', description: 'crane, a machine' },
        'cat',
      ]),
    ],
  ])('gives names in order with their descriptions: %s', (file, text) => {
    expect(parseClasses(text, file)).toEqual(CRANES);
  });

  it('takes numbers in YAML as names', () => {
    expect(parseClasses('- 101\n- name: 7\n', 'a.yml').map(({ name }) => name)).toEqual(['101', '7']);
  });

  it.each([
    ['nothing in it', 'a.txt', '\n \n', /there is no class in it; write a name per line/],
    ['nothing in YAML', 'a.yaml', '', /there is no class in it/],
    ['a single class', 'a.txt', 'cat\n', /a single class; at least two/],
    ['a name twice', 'a.txt', 'cat\ndog\ncat\n', /a.txt, line 3: class "cat" is there already \(a.txt, line 1\)/],
    ['a name with and without description', 'a.txt', 'cat\tan animal\ncat\n', /line 2: class "cat" is there already/],
    ['a description twice', 'a.txt', 'cat\tan animal\ncat\tan animal\n', /described twice as "an animal"/],
    ['a description without a name', 'a.txt', 'cat\n\tan animal\n', /line 2: a class has no name/],
    [
      'an empty description',
      'a.yaml',
      '- cat\n- {name: dog, description: ""}\n',
      /line 2: a description of "dog" is empty/,
    ],
    ['a key twice', 'a.json', '{"cat": "a", "cat": "b"}', /line 1: key appears twice/],
    ['other YAML', 'a.yaml', 'cat: {legs: 4}\n', /write a list of names/],
    ['a sentence as YAML', 'a.yaml', 'just words', /write a list of names/],
    ['broken YAML', 'a.yaml', 'cat: [', /not valid YAML/],
    ['bytes that are no text', 'a.txt', 'cat\0\ndog', /it is not text/],
  ])('is refused with %s', (_, file, text, message) => {
    expect(() => parseClasses(text, file)).toThrow(message);
  });

  it('names from elsewhere must differ, too', () => {
    expect(() => namedClasses(['missile', 'tench', 'missile'], 'imagenet')).toThrow(
      /imagenet, class 3: class "missile"/,
    );
  });
});
