import type { VisionConfig } from '../../common/config/vision-config.ts';
import { lastSide } from './modified-resnet-shapes.ts';
import { vitLayout } from './vit-layout.ts';

/** Where a tower keeps the positions of its places, which follow the size of its pictures. */
export interface PositionGrid {
  /** Key of the table, a row per token. */
  readonly name: string;
  /** Places per side. */
  readonly side: number;
  /** Rows before those of the places: 1 for a class token, or for the mean that asks in the attention pool of CLIP's ResNet. */
  readonly firstTokens: 0 | 1;
}

/** Undefined for a tower without positions. */
export function positionGrid(vision: VisionConfig): PositionGrid | undefined {
  switch (vision.kind) {
    case 'resnet':
      return undefined;
    case 'modified-resnet':
      return { name: 'visual.attnpool.positional_embedding', side: lastSide(vision), firstTokens: 1 };
    default: {
      const { imageSize, patchSize, classToken } = vitLayout(vision);
      const firstTokens = classToken ? 1 : 0;
      return { name: 'visual.positional_embedding', side: imageSize / patchSize, firstTokens };
    }
  }
}
