import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { describeView } from '../../cli/augment/describe-view.ts';
import { previewConfig } from '../../cli/augment/preview-config.ts';
import { previewPictures } from '../../cli/augment/preview-pictures.ts';
import { previewSheet } from '../../cli/augment/preview-sheet.ts';
import { createContext } from '../../cli/context.ts';
import { decodeRgb } from '../../models/preprocess/decode.ts';
import { RecipeTransform } from '../../models/preprocess/recipe/recipe-transform.ts';
import { picture, temporaryFolder } from '../support/datasets.ts';

const context = createContext({ quiet: true }, new AbortController().signal);
let folder: Awaited<ReturnType<typeof temporaryFolder>>;

beforeAll(async () => {
  folder = await temporaryFolder();
  for (const i of [0, 1, 2, 3, 4]) {
    await writeFile(path.join(folder.path, `p${i}.png`), await picture(i, { width: 60, height: 40 }));
  }
  await writeFile(path.join(folder.path, 'notes.txt'), 'no picture');
});
afterAll(() => folder.remove());

const sheetOf = async (recipe: 'byol' | 'mae', change: object = {}, sets: readonly string[] = []) => {
  const pictures = await previewPictures(folder.path, 2, context);
  const augment = previewConfig(recipe, sets);
  return previewSheet(pictures, { augment, recipe, views: 4, size: 48, seed: 3, epoch: 1, ...change });
};

describe('covey augment preview', () => {
  it('spreads its pictures over a folder and leaves other files out', async () => {
    const names = (await previewPictures(folder.path, 2, context)).map(({ name, sampleIndex }) => [name, sampleIndex]);
    expect(names).toEqual([
      ['p1.png', 1],
      ['p3.png', 3],
    ]);
    expect(await previewPictures(folder.path, 9, context)).toHaveLength(5);
  });

  it('says what is not there', async () => {
    const missing = previewPictures(path.join(folder.path, 'none'), 2, context);
    await expect(missing).rejects.toMatchObject({ code: 'NOT_FOUND', message: expect.stringContaining('icons:<set>') });
    const empty = await temporaryFolder();
    await expect(previewPictures(empty.path, 2, context)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await empty.remove();
    const broken = { name: 'x.png', sampleIndex: 0, bytes: (await picture(1)).subarray(0, 200) };
    const options = { augment: previewConfig('mae', []), recipe: 'mae', views: 1, size: 16, seed: 0, epoch: 0 };
    await expect(previewSheet([broken], options)).rejects.toMatchObject({
      code: 'DATA_CORRUPT',
      message: expect.stringContaining('x.png'),
    });
  });

  it('shows the very pixels that training with this seed and epoch sees', async () => {
    const { png, rows } = await sheetOf('mae');
    const [row] = rows;
    const augment = previewConfig('mae', []);
    const transform = new RecipeTransform({ imageSide: 48, seed: 3, augment });
    const image = await decodeRgb(await picture(1, { width: 60, height: 40 }), { pixelsMax: 1e6 });
    const view = transform.draw({ epoch: 1, sampleIndex: 1, view: 0 }, image);
    expect(row!.views[0]).toMatchObject(view);
    const sheet = await sharp(png).raw().toBuffer({ resolveWithObject: true });
    // The first view stands right of the original, in the middle of a cell of 112.
    const left = 16 + 112 + 12 + 32;
    const top = 16 + 36;
    const { width, channels } = sheet.info;
    const shown = Array.from({ length: 48 * 48 * 3 }, (_, i) => {
      const [y, x, c] = [Math.floor(i / 144), Math.floor(i / 3) % 48, i % 3];
      return sheet.data[((top + y) * width + left + x) * channels + c];
    });
    expect(shown).toEqual([...transform.apply(image, view)]);
  });

  it('is the same sheet for the same seed, another for another, and wider for more views', async () => {
    const { png } = await sheetOf('byol');
    expect((await sheetOf('byol')).png).toEqual(png);
    expect((await sheetOf('byol', { seed: 4 })).png).not.toEqual(png);
    const wider = await sharp((await sheetOf('byol', { views: 6 })).png).metadata();
    expect(wider.width - (await sharp(png).metadata()).width).toBe(2 * (112 + 12));
  });

  it('shows asymmetric views as pairs over epochs, and a multi-crop whole', async () => {
    const pairs = (await sheetOf('byol')).rows[0]!.views.map((view) => [view.spec.view, view.epoch]);
    expect(pairs).toEqual([
      [0, 1],
      [1, 1],
      [0, 2],
      [1, 2],
    ]);
    const { rows } = await sheetOf('mae', {}, ['multiCrop={views: 3, side: 20, scale: [0.05, 0.14]}']);
    expect(rows[0]!.views.map((view) => view.spec.side)).toEqual([48, 48, 20, 20, 20]);
  });

  it('labels what was done in the order it was done', () => {
    const transform = new RecipeTransform({
      imageSide: 48,
      seed: 3,
      augment: previewConfig('moco-v1', ['grayscale=1']),
    });
    const source = { width: 60, height: 40 };
    const view = transform.draw({ epoch: 0, sampleIndex: 0, view: 0 }, source);
    const steps = (greyFirst: boolean) => describeView(view, source, greyFirst).map((line) => line.split(' ')[0]);
    const jitter = view.jitter.map((step) => step.kind);
    expect(steps(true)).toEqual(['crop', 'grey', ...jitter]);
    expect(steps(false)).toEqual(['crop', ...jitter, 'grey']);
  });

  it('is found by the program, which refuses an unknown recipe with the known ones', async () => {
    const main = path.resolve(import.meta.dirname, '../../dist/cli/main.js');
    const run = promisify(execFile)(process.execPath, [
      main,
      'augment',
      'preview',
      '--input',
      'x',
      '--recipe',
      'simlcr',
    ]);
    await expect(run).rejects.toMatchObject({ code: 2, stderr: expect.stringContaining('moco-v3') });
  });
});
