import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type AugmentConfig, augmentSchema } from '../../common/config/augment-config.ts';
import { RandomStream } from '../../common/random.ts';
import { drawAugmentation } from '../../models/preprocess/augmentation.ts';
import { colorMatrix } from '../../models/preprocess/color-matrix.ts';
import { decodeRgb } from '../../models/preprocess/decode.ts';
import { evalTransform } from '../../models/preprocess/eval-transform.ts';
import { readImageHeader } from '../../models/preprocess/image-header.ts';
import { TrainTransform } from '../../models/preprocess/train-transform.ts';
import { Warp } from '../../models/preprocess/warp.ts';
import { picture, temporaryFolder } from '../support/datasets.ts';

const PYTHON = '/usr/bin/python3';
const hasPil = spawnSync(PYTHON, ['-c', 'import PIL, torchvision']).status === 0;
const limits = { pixelsMax: 1_000_000 };
const still: AugmentConfig = {
  scale: [1, 1],
  ratio: [1, 1],
  shift: 0,
  zoom: [1, 1],
  rotateDegrees: 0,
  colorJitter: 0,
  hueJitter: 0,
  grayscale: 0,
  flip: 0,
};
const identity = { epoch: 1, sampleIndex: 5, view: 0 };

const TORCHVISION_EVAL = `
import sys
from PIL import Image
from torchvision import transforms as T
side = int(sys.argv[2])
t = T.Compose([T.Resize(side, interpolation=T.InterpolationMode.BICUBIC), T.CenterCrop(side)])
sys.stdout.buffer.write(t(Image.open(sys.argv[1]).convert('RGB')).tobytes())
`;

function meanAbsoluteError(a: Uint8Array, b: Uint8Array): number {
  expect(a.length).toBe(b.length);
  return a.reduce((sum, value, i) => sum + Math.abs(value - b[i]!), 0) / a.length;
}

describe.skipIf(!hasPil)('evalTransform against torchvision and PIL', () => {
  let folder: Awaited<ReturnType<typeof temporaryFolder>>;
  beforeAll(async () => {
    folder = await temporaryFolder();
  });
  afterAll(() => folder.remove());

  it.each([
    [200, 133, 'png', 0],
    [133, 200, 'png', 0],
    [64, 64, 'png', 0],
    [40, 31, 'png', 0],
    [48, 77, 'png', 0],
    [301, 200, 'jpeg', 1.2],
  ] as const)('%i×%i %s is within %f levels', async (width, height, format, tolerance) => {
    const bytes = await picture(3, { width, height, format });
    const file = path.join(folder.path, `picture.${format}`);
    writeFileSync(file, bytes);
    const expected = execFileSync(PYTHON, ['-c', TORCHVISION_EVAL, file, '48'], { timeout: 60_000 });
    expect(meanAbsoluteError(await evalTransform(bytes, 48, limits), expected)).toBeLessThanOrEqual(tolerance);
  });
});

describe('decoding', () => {
  const reasonOf = async (bytes: Uint8Array) => {
    try {
      await decodeRgb(bytes, limits);
      return 'decoded';
    } catch (thrown) {
      expect(thrown).toMatchObject({ name: 'CoveyError', code: 'DATA_CORRUPT' });
      return (thrown as { fields: { reason: string } }).fields.reason;
    }
  };

  it.each(['jpeg', 'png', 'webp'] as const)('finds the size of a %s before decoding it', async (format) => {
    expect(readImageHeader(await picture(1, { width: 37, height: 23, format }), limits)).toEqual({
      format,
      width: 37,
      height: 23,
    });
  });

  it('finds the size of lossless and transparent WebP', async () => {
    const source = sharp({
      create: { width: 19, height: 41, channels: 4, background: { r: 9, g: 8, b: 7, alpha: 0.5 } },
    });
    for (const options of [{ lossless: true }, { lossless: false }]) {
      expect(readImageHeader(await source.clone().webp(options).toBuffer(), limits)).toEqual({
        format: 'webp',
        width: 19,
        height: 41,
      });
    }
  });

  it.each(['jpeg', 'png', 'webp'] as const)('refuses a %s that ends half-way', async (format) => {
    const bytes = await picture(1, { width: 300, height: 200, format });
    expect(await reasonOf(bytes.subarray(0, bytes.length >> 1))).toBe('undecodable');
  });

  it('refuses nothing at all, other formats, and bombs', async () => {
    expect(await reasonOf(new Uint8Array())).toBe('zero-byte');
    expect(await reasonOf(new TextEncoder().encode('<svg xmlns="http://www.w3.org/2000/svg"/>'))).toBe('not-an-image');
    expect(
      await reasonOf(
        await sharp({ create: { width: 9, height: 9, channels: 3, background: '#fff' } })
          .gif()
          .toBuffer(),
      ),
    ).toBe('not-an-image');
    const bomb = await sharp({ create: { width: 10_000, height: 10_000, channels: 3, background: '#777' } })
      .png()
      .toBuffer();
    expect(await reasonOf(bomb)).toBe('too-many-pixels');
  });

  it('flattens transparency on white and makes RGB of grey and CMYK', async () => {
    const clear = await sharp({
      create: { width: 4, height: 4, channels: 4, background: { r: 255, g: 0, b: 0, alpha: 0 } },
    })
      .png()
      .toBuffer();
    expect([...(await decodeRgb(clear, limits)).pixels.subarray(0, 3)]).toEqual([255, 255, 255]);
    const solid = sharp({ create: { width: 8, height: 8, channels: 3, background: { r: 90, g: 90, b: 90 } } });
    const grey = await decodeRgb(await solid.clone().toColourspace('b-w').png().toBuffer(), limits);
    expect(grey.pixels.length).toBe(8 * 8 * 3);
    expect(new Set(grey.pixels)).toEqual(new Set([90]));
    const cmyk = await decodeRgb(await solid.clone().toColourspace('cmyk').jpeg().toBuffer(), limits);
    expect(cmyk.pixels.length).toBe(8 * 8 * 3);
  });

  it('does not turn a picture by its EXIF orientation', async () => {
    const turned = await sharp(await picture(1, { width: 30, height: 20 }))
      .jpeg()
      .withMetadata({ orientation: 6 })
      .toBuffer();
    expect(await decodeRgb(turned, limits)).toMatchObject({ width: 30, height: 20 });
  });
});

describe('training augmentation', () => {
  it('is a function of seed, epoch, sample and view', async () => {
    const augment: AugmentConfig = {
      ...still,
      scale: [0.3, 1],
      ratio: [0.75, 1.33],
      shift: 0.1,
      zoom: [0.8, 1.2],
      colorJitter: 0.4,
      hueJitter: 0.1,
      flip: 0.5,
    };
    const bytes = await picture(2, { width: 60, height: 50 });
    const draw = async (seed: number, view: object) => {
      const into = new Uint8Array(24 * 24 * 3);
      await new TrainTransform({ imageSide: 24, seed, augment, decodedSide: 0, ...limits }).fromFile(
        bytes,
        { ...identity, ...view },
        into,
      );
      return into;
    };
    expect(await draw(1, {})).toEqual(await draw(1, {}));
    for (const other of [draw(2, {}), draw(1, { epoch: 2 }), draw(1, { sampleIndex: 6 }), draw(1, { view: 1 })]) {
      expect(await other).not.toEqual(await draw(1, {}));
    }
  });

  it('leaves the other draws as they were when one thing is switched on', () => {
    const source = { width: 60, height: 40 };
    const on: AugmentConfig = { ...still, scale: [0.2, 0.9], ratio: [0.5, 2], shift: 0.2, zoom: [0.5, 1.5] };
    const plain = drawAugmentation(new RandomStream('a'), on, source);
    const more = drawAugmentation(
      new RandomStream('a'),
      { ...on, rotateDegrees: 30, colorJitter: 0.5, flip: 1, grayscale: 1 },
      source,
    );
    expect([more.crop, more.shiftX, more.shiftY, more.zoom]).toEqual([
      plain.crop,
      plain.shiftX,
      plain.shiftY,
      plain.zoom,
    ]);
  });

  it('keeps crops inside the picture and in the range of areas', () => {
    const config = { ...still, scale: [0.2, 0.7] as [number, number], ratio: [0.75, 1.33] as [number, number] };
    for (let i = 0; i < 500; i++) {
      const { crop } = drawAugmentation(new RandomStream('crop', i), config, { width: 64, height: 48 });
      const area = (crop.width * crop.height) / (64 * 48);
      expect(area).toBeGreaterThan(0.199);
      expect(area).toBeLessThan(0.701);
      expect(
        crop.left >= 0 && crop.left + crop.width <= 64 + 1e-9 && crop.top >= 0 && crop.top + crop.height <= 48 + 1e-9,
      ).toBe(true);
    }
  });

  // Runs of older versions must resume to the same pictures; the digests are those of the version before recipes.
  it.each([
    ['the defaults', {}, 'b776fdd24618ed82'],
    [
      'the demo’s',
      {
        scale: [1, 1],
        ratio: [1, 1],
        shift: 0.08,
        zoom: [0.8, 1.15],
        rotateDegrees: 12,
        colorJitter: 0.4,
        hueJitter: 0.05,
        grayscale: 0.15,
      },
      'c2cc998ace83ff83',
    ],
    ['strong crops', { scale: [0.2, 1], ratio: [0.3, 2], flip: 0.5, colorJitter: 0.3 }, 'fbea19b36a041504'],
  ])('keeps the bits of %s', (_, written, digest) => {
    const augment = augmentSchema.parse(written);
    const transform = new TrainTransform({ imageSide: 24, seed: 5, augment, decodedSide: 32, ...limits });
    const square = Uint8Array.from({ length: 32 * 32 * 3 }, (_, i) => (i * 2_654_435_761) >>> 24);
    const into = new Uint8Array(24 * 24 * 3);
    const hash = createHash('sha256');
    for (let sampleIndex = 0; sampleIndex < 100; sampleIndex++) {
      transform.fromDecoded(square, { epoch: 1, sampleIndex, view: 0 }, into);
      hash.update(into);
    }
    expect(hash.digest('hex').slice(0, 16)).toBe(digest);
  });

  it('with everything off and equal sides gives the decoded pixels back', async () => {
    const transform = new TrainTransform({ imageSide: 32, seed: 1, augment: still, decodedSide: 32, ...limits });
    const decoded = await transform.decode(await picture(4, { width: 32, height: 32 }));
    const into = new Uint8Array(32 * 32 * 3);
    transform.fromDecoded(decoded, identity, into);
    expect(into).toEqual(decoded);
  });
});

describe('Warp', () => {
  const side = 16;
  const source = { width: 16, height: 16, pixels: Uint8Array.from({ length: 16 * 16 * 3 }, (_, i) => (i * 37) % 251) };
  const view = drawAugmentation(new RandomStream('w'), still, source);
  const run = (change: Partial<typeof view>, rotated = false, color: Float64Array | null = null) => {
    const into = new Uint8ClampedArray(side * side * 3);
    new Warp({ side }).run(source, { ...view, ...change }, color, into, rotated);
    return into;
  };
  const pixel = (pixels: ArrayLike<number>, x: number, y: number) =>
    [0, 1, 2].map((c) => pixels[(y * side + x) * 3 + c]);

  it('flips', () => {
    expect(pixel(run({ flip: true }), 3, 5)).toEqual(pixel(source.pixels, 12, 5));
  });

  it('shifts by whole pixels exactly and fills the border with white', () => {
    const shifted = run({ shiftX: 2 / side, shiftY: -1 / side });
    expect(pixel(shifted, 7, 4)).toEqual(pixel(source.pixels, 5, 5));
    expect(pixel(shifted, 1, 4)).toEqual([255, 255, 255]);
    expect(pixel(shifted, 7, 15)).toEqual([255, 255, 255]);
  });

  it('turns by a quarter', () => {
    const turned = run({ rotateRadians: Math.PI / 2 }, true);
    // Clockwise on screen: what was at the left is at the top.
    expect(pixel(turned, 15 - 6, 3)).toEqual(pixel(source.pixels, 3, 6));
  });

  it('rotated by nothing agrees with the separable path', () => {
    const change = { zoom: 1.3, shiftX: 0.07, flip: true };
    const separable = run(change);
    const rotated = run(change, true);
    expect(separable.every((value, i) => Math.abs(value - rotated[i]!) <= 1)).toBe(true);
  });

  it('averages when it shrinks', () => {
    const checks = {
      width: 64,
      height: 64,
      pixels: Uint8Array.from({ length: 64 * 64 * 3 }, (_, i) => ((Math.floor(i / 3) + Math.floor(i / 192)) % 2) * 255),
    };
    const into = new Uint8ClampedArray(side * side * 3);
    const crop = { left: 0, top: 0, width: 64, height: 64 };
    for (const rotated of [false, true]) {
      new Warp({ side }).run(checks, { ...view, crop }, null, into, rotated);
      expect(into.every((value) => Math.abs(value - 127.5) < 10)).toBe(true);
    }
  });
});

describe('colorMatrix', () => {
  const plain = { brightness: 1, contrast: 1, saturation: 1, hue: 0, grayscale: false };
  const apply = (change: object, rgb: readonly number[]) => {
    const m = colorMatrix({ ...plain, ...change });
    return [0, 4, 8].map((row) => m[row]! * rgb[0]! + m[row + 1]! * rgb[1]! + m[row + 2]! * rgb[2]! + m[row + 3]!);
  };

  it('changes nothing by default', () => {
    apply({}, [200, 100, 50]).forEach((value, i) => {
      expect(value).toBeCloseTo([200, 100, 50][i]!, 1);
    });
  });

  it('leaves greys grey under saturation and hue', () => {
    for (const value of apply({ saturation: 1.7, hue: 0.3 }, [90, 90, 90])) expect(value).toBeCloseTo(90, 1);
  });

  it('turns to the luma in grayscale, and about middle grey with contrast', () => {
    for (const value of apply({ grayscale: true }, [200, 100, 50]))
      expect(value).toBeCloseTo(0.299 * 200 + 0.587 * 100 + 0.114 * 50, 1);
    for (const value of apply({ contrast: 0 }, [200, 100, 50])) expect(value).toBeCloseTo(128, 5);
  });

  it('brings a third of a turn of red near green', () => {
    const [red, green, blue] = apply({ hue: -1 / 3 }, [255, 0, 0]);
    const [red2, green2, blue2] = apply({ hue: 1 / 3 }, [255, 0, 0]);
    // One way is towards green, the other towards blue; red is never the largest.
    expect(Math.max(green!, blue!)).toBeGreaterThan(red!);
    expect(Math.max(green2!, blue2!)).toBeGreaterThan(red2!);
    expect(green! > blue!).not.toBe(green2! > blue2!);
  });
});
