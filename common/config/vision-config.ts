import { z } from 'zod';

/** Image towers. Only the ViT of CLIP needs nothing but its sizes; what else there is has no default in the schema, so that old runs stay as they were. */

const positiveInt = z.int().positive();

const imageSize = positiveInt.describe('Side of the square input, pixels');
const kinds = ['vit', 'resnet', 'modified-resnet'] as const;

const batchNorm = z
  .enum(['lane', 'sync'])
  .optional()
  .describe(
    'ResNets: over which pictures batch norms, the head’s too, take their statistics. lane (default): those of one lane; sync: the whole global batch',
  );

const vitOptions = {
  pooling: z
    .enum(['tok', 'avg', 'map'])
    .optional()
    .describe(
      'vit: the class token (default), the mean over the patches, or SigLIP’s attention pool with a learnt query',
    ),
  normBeforePool: z
    .boolean()
    .optional()
    .describe('vit, pooling avg: the final norm on every token (open_clip, big_vision) instead of on their mean (MAE)'),
  classToken: z.boolean().optional().describe('vit: whether there is one. Default: unless pooling is map'),
  lnPre: z
    .boolean()
    .optional()
    .describe('vit: a norm before the blocks. Default true, as CLIP; MAE, MoCo v3, SigLIP: false'),
  patchBias: z.boolean().optional().describe('vit: default false, as CLIP'),
  positions: z
    .enum(['learnt', 'sincos'])
    .optional()
    .describe('vit: learnt (default), or fixed sines and cosines in two dimensions (MAE, MoCo v3)'),
  layerNormEps: z.number().positive().optional().describe('vit: default 1e-5, as CLIP; MAE, MoCo v3, SigLIP: 1e-6'),
  init: z.enum(['clip', 'mae', 'moco-v3']).optional().describe('vit: whose first weights. Default clip'),
};

export const vitConfigSchema = z.strictObject({
  kind: z.literal('vit').optional(),
  imageSize,
  patchSize: positiveInt,
  width: positiveInt,
  layers: positiveInt,
  headWidth: positiveInt.default(64),
  mlpRatio: z.number().positive().default(4),
  ...vitOptions,
});

const resnetOptions = {
  depth: z.union([z.literal(18), z.literal(34), z.literal(50), z.literal(101), z.literal(152)]),
  stem: z
    .enum(['imagenet', 'cifar'])
    .optional()
    .describe('resnet: 7×7 stride 2 and max pool (default), or 3×3 stride 1 for small pictures (SimCLR, appendix B.9)'),
  zeroInitResidual: z
    .boolean()
    .optional()
    .describe('resnet: every block starts as the identity (Goyal et al. 2017). Default false'),
  batchNorm,
};

export const resnetConfigSchema = z.strictObject({
  kind: z.literal('resnet'),
  imageSize,
  width: positiveInt.optional(),
  ...resnetOptions,
});

const blocks = z.tuple([positiveInt, positiveInt, positiveInt, positiveInt]);

export const modifiedResnetConfigSchema = z.strictObject({
  kind: z.literal('modified-resnet'),
  imageSize,
  blocks: blocks.describe('modified-resnet: bottlenecks per stage; RN50: [3, 4, 6, 3]'),
  width: positiveInt.default(64),
  headWidth: positiveInt.default(64),
  batchNorm,
});

export const visionConfigSchema = z.discriminatedUnion('kind', [
  vitConfigSchema,
  resnetConfigSchema,
  modifiedResnetConfigSchema,
]);

/**
 * Every key of every kind, none required and none with a default (zod fills defaults inside optional fields too, and would silently undo
 * the preset's value). Whether they belong to the kind is asked once the preset is known.
 */
export const visionOverridesSchema = z
  .strictObject({
    kind: z
      .enum(kinds)
      .describe('Default vit. resnet: torchvision’s; modified-resnet: CLIP’s, with an attention pool (docs/towers.md)'),
    imageSize,
    patchSize: positiveInt.describe('vit'),
    width: positiveInt.describe(
      'vit: of the transformer, heads = width / headWidth. ResNets: of the first stage, default 64',
    ),
    layers: positiveInt.describe('vit'),
    headWidth: positiveInt.describe('vit; modified-resnet: of the attention pool'),
    mlpRatio: z.number().positive().describe('vit'),
    ...vitOptions,
    ...resnetOptions,
    depth: resnetOptions.depth.describe('resnet'),
    blocks: blocks.describe('modified-resnet: bottlenecks per stage; RN50: [3, 4, 6, 3]'),
  })
  .partial();

export type VisionConfig = z.infer<typeof visionConfigSchema>;
export type VitConfig = z.infer<typeof vitConfigSchema>;
export type ResnetVisionConfig = z.infer<typeof resnetConfigSchema>;
export type ModifiedResnetConfig = z.infer<typeof modifiedResnetConfigSchema>;

export function isVit(vision: VisionConfig): vision is VitConfig {
  return vision.kind === undefined || vision.kind === 'vit';
}

/** Over which pictures batch norms take their statistics in training. */
export function batchNormOf(vision: VisionConfig): 'lane' | 'sync' {
  return (isVit(vision) ? undefined : vision.batchNorm) ?? 'lane';
}
