import { z } from 'zod';
import { RECIPE_NAMES, withRecipe } from './augment-recipes.ts';

const positiveInt = z.int().positive();
const fraction = z.number().min(0).max(1);
const areaRange = z.tuple([fraction, fraction]);
/** One for all views, or one per view; the last holds for all later views. */
const perView = z.union([fraction, z.array(fraction).min(1)]);

const jitterSchema = z
  .strictObject({
    probability: fraction.default(1),
    brightness: z.number().min(0).default(0).describe('Factor from [max(0, 1 − this), 1 + this]; 0: left out'),
    contrast: z.number().min(0).default(0).describe('The same, about the mean grey of the picture'),
    saturation: z.number().min(0).default(0).describe('The same, about the grey of each pixel'),
    hue: z.number().min(0).max(0.5).default(0).describe('Largest turn, in turns'),
    afterGrayscale: z.boolean().default(false).describe('Grey first, then jitter, as MoCo v1'),
  })
  .describe('torchvision’s ColorJitter, the four in random order. With a recipe only');

const blurSchema = z
  .strictObject({
    method: z
      .enum(['pillow', 'gaussian'])
      .default('pillow')
      .describe('pillow: its three box blurs, as the MoCo code. gaussian: torchvision’s, kernel a tenth of the side'),
    probability: perView.default(0.5).describe('A list: one per view'),
    sigma: z.tuple([z.number().positive(), z.number().positive()]).default([0.1, 2]).describe('Range, pixels'),
  })
  .describe('With a recipe only');

const solarizeSchema = z
  .strictObject({
    probability: perView.default(0.2).describe('A list: one per view'),
    threshold: z.int().min(0).max(256).default(128).describe('Levels from here on are inverted'),
  })
  .describe('With a recipe only');

const multiCropSchema = z
  .strictObject({
    views: positiveInt.describe('Small views after the first two'),
    side: positiveInt.describe('Their side, pixels'),
    scale: areaRange.describe('Their range of areas'),
  })
  .describe('SwAV’s and DINO’s small views. With a recipe only');

const keysSchema = z
  .strictObject({
    recipe: z
      .enum(RECIPE_NAMES)
      .optional()
      .describe(
        'The augmentation of a published method (docs/augmentations.md); other keys override its values. Without one: covey’s own one-pass warp',
      ),
    scale: areaRange.default([0.9, 1]).describe('Area range of the random resized crop'),
    ratio: z.tuple([z.number().positive(), z.number().positive()]).default([3 / 4, 4 / 3]),
    shift: fraction
      .default(0)
      .describe('Largest shift as a fraction of the side; the border is filled with the background'),
    zoom: z
      .tuple([z.number().positive(), z.number().positive()])
      .default([1, 1])
      .describe('Scale range about the centre'),
    rotateDegrees: z.number().min(0).max(180).default(0),
    colorJitter: fraction.default(0).describe('Brightness, contrast and saturation strength'),
    hueJitter: z.number().min(0).max(0.5).default(0).describe('Largest hue turn, in turns'),
    grayscale: fraction.default(0).describe('Probability'),
    flip: fraction.default(0).describe('Probability of a horizontal flip; 0 as in CLIP'),
    interpolation: z
      .enum(['bilinear', 'bicubic'])
      .optional()
      .describe('Pillow’s filter for the resize. With a recipe only'),
    jitter: jitterSchema.optional(),
    blur: blurSchema.optional(),
    solarize: solarizeSchema.optional(),
    multiCrop: multiCropSchema.optional(),
  })
  .superRefine((config, context) => {
    const refuse = (path: string[], message: string) => context.addIssue({ code: 'custom', path, message });
    const ranges = [
      [['scale'], config.scale],
      [['ratio'], config.ratio],
      [['zoom'], config.zoom],
      [['blur', 'sigma'], config.blur?.sigma],
      [['multiCrop', 'scale'], config.multiCrop?.scale],
    ] as const;
    for (const [path, range] of ranges) {
      if (range !== undefined && range[0] > range[1])
        refuse([...path], `must be [low, high], is [${range[0]}, ${range[1]}]`);
    }
    if (config.recipe === undefined) {
      for (const key of ['interpolation', 'jitter', 'blur', 'solarize', 'multiCrop'] as const) {
        if (config[key] !== undefined) refuse([key], 'needs a recipe; `recipe: none` adds nothing of its own');
      }
      return;
    }
    const warped = `belongs to covey’s own warp, which recipe ${config.recipe} does not use`;
    for (const key of ['shift', 'rotateDegrees'] as const) {
      if (config[key] !== 0) refuse([key], `${warped}; leave it or the recipe out`);
    }
    if (config.zoom.some((factor) => factor !== 1)) refuse(['zoom'], `${warped}; leave it or the recipe out`);
    if (config.colorJitter !== 0) refuse(['colorJitter'], `${warped}; use jitter.brightness, contrast and saturation`);
    if (config.hueJitter !== 0) refuse(['hueJitter'], `${warped}; use jitter.hue`);
  });

/** `data.augment` of run.yaml. Parsing fills in the recipe's values, so a stored config says all of it. */
export const augmentSchema = z.preprocess(withRecipe, keysSchema).prefault({});

export type AugmentConfig = z.infer<typeof keysSchema>;
export type JitterConfig = z.infer<typeof jitterSchema>;
/** A probability, or one per view. */
export type PerView = z.infer<typeof perView>;
