import type { AugmentConfig } from '../../common/config/augment-config.ts';
import type { RandomStream } from '../../common/random.ts';
import type { ColorJitter } from './color-matrix.ts';
import { type CropBox, drawCrop, type PictureSize } from './crop-box.ts';

export interface Augmentation {
  readonly crop: CropBox;
  readonly flip: boolean;
  /** Fractions of the output's side. */
  readonly shiftX: number;
  readonly shiftY: number;
  readonly zoom: number;
  readonly rotateRadians: number;
  readonly color: ColorJitter;
}

/**
 * Draws everything one view of one sample needs. The order of draws is fixed whatever is enabled, so switching one thing on
 * leaves the others as they were; the crop, whose number of draws varies, comes last.
 */
export function drawAugmentation(stream: RandomStream, config: AugmentConfig, source: PictureSize): Augmentation {
  const flip = stream.uniform() < config.flip;
  const shiftX = stream.uniform(-config.shift, config.shift);
  const shiftY = stream.uniform(-config.shift, config.shift);
  const zoom = stream.uniform(...config.zoom);
  const rotateRadians = (stream.uniform(-config.rotateDegrees, config.rotateDegrees) * Math.PI) / 180;
  const factor = () => stream.uniform(1 - config.colorJitter, 1 + config.colorJitter);
  const brightness = factor();
  const contrast = factor();
  const saturation = factor();
  const hue = stream.uniform(-config.hueJitter, config.hueJitter);
  const grayscale = stream.uniform() < config.grayscale;
  const crop = drawCrop(stream, config, source, false);
  return {
    crop,
    flip,
    shiftX,
    shiftY,
    zoom,
    rotateRadians,
    color: { brightness, contrast, saturation, hue, grayscale },
  };
}

/** Whether a config asks for anything beyond the crop and the resize. */
export function warps(config: AugmentConfig): boolean {
  const [zoomLow, zoomHigh] = config.zoom;
  const geometry = config.shift > 0 || zoomLow !== 1 || zoomHigh !== 1 || config.rotateDegrees > 0 || config.flip > 0;
  return geometry || recolors(config);
}

export function recolors(config: AugmentConfig): boolean {
  return config.colorJitter > 0 || config.hueJitter > 0 || config.grayscale > 0;
}
