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

/** Patches per side of a ViT; undefined for other towers, which have no positions to be resized. */
export function patchSide(vision: VisionConfig): number | undefined {
  return isVit(vision) ? vision.imageSize / vision.patchSize : undefined;
}

/** Tokens of a whole picture. */
export function tokenCount(layout: VitLayout): number {
  return patchCount(layout) + (layout.classToken ? 1 : 0);
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
  const different = isVit(vision)
    ? Object.entries(vitLayout(vision)).filter(([key, value]) => key in CLIP_LAYOUT && CLIP_LAYOUT[key] !== value)
    : [['kind', vision.kind]];
  if (different.length === 0) return undefined;
  const seen = different.map(([key, value]) => `vision.${key} is ${value}`).join(', ');
  return `only CLIP's own ViT is known there: ${seen}`;
}

const CLIP_LAYOUT: Readonly<Record<string, unknown>> = {
  pooling: 'tok',
  classToken: true,
  lnPre: true,
  patchBias: false,
  positions: 'learnt',
  layerNormEps: 1e-5,
};
