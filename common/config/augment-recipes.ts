/**
 * The augmentations of published methods, to the constant. Operations are torchvision's on PIL pictures throughout; where the
 * original is not torchvision's (SimCLR: TensorFlow; BYOL: JAX) the parameters are the original's and docs/augmentations.md
 * says what differs. A list gives view 0, view 1, …; its last element holds for all later views.
 */
export const AUGMENT_RECIPES = {
  /** The centre square, resized. */
  none: { scale: [1, 1], ratio: [1, 1], interpolation: 'bicubic', flip: 0, grayscale: 0 },
  /** mlfoundations/open_clip:src/open_clip/transform.py. No flip: captions say left and right. */
  clip: { scale: [0.9, 1], interpolation: 'bicubic', flip: 0, grayscale: 0 },
  /** google-research/simclr:data_util.py, strength 1; blur as torchvision's with the paper's kernel of a tenth of the side. */
  simclr: {
    scale: [0.08, 1],
    interpolation: 'bicubic',
    flip: 0.5,
    jitter: { probability: 0.8, brightness: 0.8, contrast: 0.8, saturation: 0.8, hue: 0.2 },
    grayscale: 0.2,
    blur: { method: 'gaussian', probability: 0.5, sigma: [0.1, 2] },
  },
  /** facebookresearch/moco:main_moco.py without --aug-plus: grey before jitter, jitter always. */
  'moco-v1': {
    scale: [0.2, 1],
    interpolation: 'bilinear',
    flip: 0.5,
    jitter: { probability: 1, brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.4, afterGrayscale: true },
    grayscale: 0.2,
  },
  /** facebookresearch/moco:main_moco.py with --aug-plus; moco/loader.py:GaussianBlur is Pillow's. */
  'moco-v2': {
    scale: [0.2, 1],
    interpolation: 'bilinear',
    flip: 0.5,
    jitter: { probability: 0.8, brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1 },
    grayscale: 0.2,
    blur: { method: 'pillow', probability: 0.5, sigma: [0.1, 2] },
  },
  /** facebookresearch/moco-v3:main_moco.py, with --crop-min at its default (its ResNet-50 runs pass 0.2). */
  'moco-v3': {
    scale: [0.08, 1],
    interpolation: 'bilinear',
    flip: 0.5,
    jitter: { probability: 0.8, brightness: 0.4, contrast: 0.4, saturation: 0.2, hue: 0.1 },
    grayscale: 0.2,
    blur: { method: 'pillow', probability: [1, 0.1], sigma: [0.1, 2] },
    solarize: { probability: [0, 0.2], threshold: 128 },
  },
  /** google-deepmind/deepmind-research:byol/utils/augmentations.py. */
  byol: {
    scale: [0.08, 1],
    interpolation: 'bicubic',
    flip: 0.5,
    jitter: { probability: 0.8, brightness: 0.4, contrast: 0.4, saturation: 0.2, hue: 0.1 },
    grayscale: 0.2,
    blur: { method: 'gaussian', probability: [1, 0.1], sigma: [0.1, 2] },
    solarize: { probability: [0, 0.2], threshold: 128 },
  },
  /** facebookresearch/mae:main_pretrain.py. */
  mae: { scale: [0.2, 1], interpolation: 'bicubic', flip: 0.5, grayscale: 0 },
} as const;

export type RecipeName = keyof typeof AUGMENT_RECIPES;
export const RECIPE_NAMES = Object.keys(AUGMENT_RECIPES) as [RecipeName, ...RecipeName[]];

/**
 * What a person wrote, on top of its recipe's values; sections are merged key by key. Anything that names no recipe comes back
 * as it is, for the schema to judge. Applying it to its own result changes nothing, so a stored config reads back the same.
 */
export function withRecipe(written: unknown): unknown {
  if (typeof written !== 'object' || written === null || !('recipe' in written)) return written;
  const name = written.recipe;
  if (typeof name !== 'string' || !Object.hasOwn(AUGMENT_RECIPES, name)) return written;
  const merged: Record<string, unknown> = { ...AUGMENT_RECIPES[name as RecipeName] };
  for (const [key, value] of Object.entries(written)) {
    merged[key] = isSection(merged[key]) && isSection(value) ? { ...merged[key], ...value } : value;
  }
  return merged;
}

function isSection(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
