import { isVit, type VisionConfig, type VitConfig } from '../../common/config/vision-config.ts';
import { CoveyError } from '../../common/errors.ts';

/** A ViT with everything said. */
export type VitLayout = Required<{ [K in keyof VitConfig]: Exclude<VitConfig[K], undefined> }>;

/** What is left out is CLIP's. */
export function vitLayout(vision: VitConfig): VitLayout {
  const { pooling = 'tok' } = vision;
  return {
    imageSize: vision.imageSize,
    patchSize: vision.patchSize,
    width: vision.width,
    layers: vision.layers,
    headWidth: vision.headWidth,
    mlpRatio: vision.mlpRatio,
    kind: 'vit',
    pooling,
    // The attention pool reads normalised tokens, as in timm's and big_vision's SigLIP.
    normBeforePool: pooling === 'map' || (vision.normBeforePool ?? false),
    classToken: vision.classToken ?? pooling !== 'map',
    lnPre: vision.lnPre ?? true,
    patchBias: vision.patchBias ?? false,
    positions: vision.positions ?? 'learnt',
    layerNormEps: vision.layerNormEps ?? 1e-5,
    init: vision.init ?? 'clip',
  };
}

export function patchCount({ imageSize, patchSize }: Pick<VitConfig, 'imageSize' | 'patchSize'>): number {
  return (imageSize / patchSize) ** 2;
}

/** Tokens of a whole picture. */
export function tokenCount(layout: VitLayout): number {
  return patchCount(layout) + (layout.classToken ? 1 : 0);
}

/** What a tower computes with its weights, defaults said: without what only its first weights and its training depend on. */
export function computedTower(vision: VisionConfig): Readonly<Record<string, unknown>> {
  const {
    init: _,
    batchNorm: __,
    zeroInitResidual: ___,
    ...rest
  }: Record<string, unknown> = isVit(vision) ? vitLayout(vision) : vision;
  return rest;
}

/**
 * The tower, where it is a ViT in CLIP's own layout, which is all that some formats know.
 * @throws CoveyError UNSUPPORTED naming what is different
 */
export function requireClipVit(vision: VisionConfig, purpose: string): VitConfig {
  const reason = clipVitMisfit(vision);
  if (reason === undefined && isVit(vision)) return vision;
  throw new CoveyError('UNSUPPORTED', `Cannot ${purpose}: ${reason}`, { fields: { vision } });
}

/** In what a tower differs from CLIP's own ViT, or undefined. */
export function clipVitMisfit(vision: VisionConfig): string | undefined {
  const different = differences(vision, CLIP_LAYOUT);
  return different === undefined ? undefined : `only CLIP's own ViT is known there: ${different}`;
}

/** A ViT in the layout of SigLIP's: attention pool, no class token, no norm before the blocks. */
export function isSiglipVit(vision: VisionConfig): vision is VitConfig {
  return differences(vision, SIGLIP_LAYOUT) === undefined;
}

function differences(vision: VisionConfig, layout: Readonly<Record<string, unknown>>): string | undefined {
  const different = isVit(vision)
    ? Object.entries(vitLayout(vision)).filter(([key, value]) => key in layout && layout[key] !== value)
    : [['kind', vision.kind]];
  return different.length === 0 ? undefined : different.map(([key, value]) => `vision.${key} is ${value}`).join(', ');
}

const CLIP_LAYOUT: Readonly<Record<string, unknown>> = {
  pooling: 'tok',
  classToken: true,
  lnPre: true,
  patchBias: false,
  positions: 'learnt',
  layerNormEps: 1e-5,
};

const SIGLIP_LAYOUT: Readonly<Record<string, unknown>> = {
  pooling: 'map',
  classToken: false,
  lnPre: false,
  patchBias: true,
  positions: 'learnt',
};
