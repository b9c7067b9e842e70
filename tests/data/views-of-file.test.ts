import sharp from 'sharp';
import { describe, expect, it } from 'vitest';
import { augmentSchema } from '../../common/config/augment-config.ts';
import { TrainTransform } from '../../models/preprocess/train-transform.ts';
import { picture } from '../support/datasets.ts';

const SIDE = 32;

async function files(): Promise<Record<string, Uint8Array>> {
  const jpeg = await picture(1, { width: 120, height: 90, format: 'jpeg' });
  return {
    jpeg,
    png: await picture(2, { width: 70, height: 90 }),
    webp: await picture(3, { width: 90, height: 61, format: 'webp' }),
    grey: await sharp(jpeg).greyscale().toColourspace('b-w').jpeg().toBuffer(),
    palette: await sharp(jpeg).png({ palette: true }).toBuffer(),
    cmyk: await sharp(jpeg).toColourspace('cmyk').jpeg().toBuffer(),
    transparent: await sharp(jpeg).ensureAlpha(0.4).png().toBuffer(),
    '16 bits': await sharp(jpeg).toColourspace('rgb16').png().toBuffer(),
  };
}

describe('viewsOfFile', () => {
  it.each([
    ['crop alone', augmentSchema.parse({ scale: [0.1, 1] })],
    ['warp and colour', augmentSchema.parse({ scale: [0.1, 1], flip: 0.5, colorJitter: 0.4, rotateDegrees: 10 })],
    ['a recipe', augmentSchema.parse({ recipe: 'moco-v3' })],
  ])('gives each view the bits of a decode of its own: %s', async (_, augment) => {
    const transform = new TrainTransform({ imageSide: SIDE, seed: 1, augment, decodedSide: 0, pixelsMax: 1e6 });
    for (const [name, bytes] of Object.entries(await files())) {
      const identities = [0, 1, 2].map((view) => ({ epoch: 2, sampleIndex: 7, view }));
      const each = identities.map(() => new Uint8Array(SIDE * SIDE * 3));
      const together = identities.map(() => new Uint8Array(SIDE * SIDE * 3));
      for (const [view, identity] of identities.entries()) await transform.fromFile(bytes, identity, each[view]!);
      await transform.viewsOfFile(bytes, identities, together);
      expect(together, name).toEqual(each);
      expect(Buffer.from(each[0]!).equals(Buffer.from(each[1]!)), name).toBe(false);
    }
  });

  it('names a broken file', async () => {
    const augment = augmentSchema.parse({});
    const transform = new TrainTransform({ imageSide: SIDE, seed: 1, augment, decodedSide: 0, pixelsMax: 1e6 });
    const bytes = (await picture(1)).subarray(0, 200);
    const identities = [0, 1].map((view) => ({ epoch: 0, sampleIndex: 0, view }));
    const into = identities.map(() => new Uint8Array(SIDE * SIDE * 3));
    await expect(transform.viewsOfFile(bytes, identities, into)).rejects.toMatchObject({
      code: 'DATA_CORRUPT',
      fields: { reason: 'undecodable' },
    });
  });
});
