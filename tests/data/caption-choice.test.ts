import { describe, expect, it } from 'vitest';
import { RandomStream } from '../../common/random.ts';
import { type CaptionChoice, chooseCaption } from '../../worker/data/caption-choice.ts';

const record = { captions: ['a cat', 'a black cat on a mat', 'chat'], captionSources: ['txt', 'llava', 'alt'] };

/** How often each caption is taken, of 3000 showings. */
function counts(choice: CaptionChoice, of: Parameters<typeof chooseCaption>[0] = record): number[] {
  const taken = new Map<string, number>();
  for (let showing = 0; showing < 3000; showing++) {
    const caption = chooseCaption(of, choice, () => new RandomStream('caption', showing))!;
    taken.set(caption, (taken.get(caption) ?? 0) + 1);
  }
  return of.captions.map((caption) => taken.get(caption) ?? 0);
}

describe('chooseCaption', () => {
  it('takes the first, the longest, or any', () => {
    expect(counts({ choose: 'first' })).toEqual([3000, 0, 0]);
    expect(counts({ choose: 'longest' })).toEqual([0, 3000, 0]);
    // A share of 1/3 has a standard deviation of 26.
    for (const count of counts({ choose: 'random' })) expect(Math.abs(count - 1000)).toBeLessThan(110);
  });

  it('draws by the weights of the sources, and never one that is not listed', () => {
    const [txt, llava, alt] = counts({ choose: 'random', weights: { txt: 1, llava: 3, unknown: 9 } });
    expect(alt).toBe(0);
    expect(txt! + llava!).toBe(3000);
    expect(Math.abs(llava! - 2250)).toBeLessThan(110);
  });

  it('falls back to any caption where none of the listed sources is there', () => {
    expect(counts({ choose: 'random', weights: { other: 1 } }).every((count) => count > 800)).toBe(true);
    expect(chooseCaption({ captions: [] }, { choose: 'random' }, () => new RandomStream('x'))).toBeUndefined();
  });
});
