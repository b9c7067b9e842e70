import type { AugmentConfig } from '../../common/config/run-config.ts';
import type { RandomStream } from '../../common/random.ts';
import type { ColorJitter } from './color-matrix.ts';

/** Tries for a crop that fits, as torchvision's RandomResizedCrop. */
const CROP_ATTEMPTS = 10;

/** A box in the source picture; fractions of pixels are allowed. */
export interface CropBox {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

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
export function drawAugmentation(
  stream: RandomStream,
  config: AugmentConfig,
  source: { readonly width: number; readonly height: number },
): Augmentation {
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
  const crop = drawCrop(stream, config, source);
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

/** torchvision.transforms.RandomResizedCrop.get_params, without rounding to whole pixels. */
function drawCrop(
  stream: RandomStream,
  config: AugmentConfig,
  source: { readonly width: number; readonly height: number },
): CropBox {
  const area = source.width * source.height;
  const [ratioLow, ratioHigh] = config.ratio;
  for (let attempt = 0; attempt < CROP_ATTEMPTS; attempt++) {
    const target = area * stream.uniform(...config.scale);
    const ratio = Math.exp(stream.uniform(Math.log(ratioLow), Math.log(ratioHigh)));
    const width = Math.sqrt(target * ratio);
    const height = Math.sqrt(target / ratio);
    if (width <= source.width && height <= source.height) {
      const top = stream.uniform(0, source.height - height);
      const left = stream.uniform(0, source.width - width);
      return { left, top, width, height };
    }
  }
  return centralCrop(source, ratioLow, ratioHigh);
}

/** torchvision's fallback: the largest central crop whose ratio is allowed. */
function centralCrop(
  source: { readonly width: number; readonly height: number },
  ratioLow: number,
  ratioHigh: number,
): CropBox {
  const ratio = source.width / source.height;
  const width = ratio > ratioHigh ? source.height * ratioHigh : source.width;
  const height = ratio < ratioLow ? source.width / ratioLow : source.height;
  return { left: (source.width - width) / 2, top: (source.height - height) / 2, width, height };
}

/** The nearest box of whole pixels inside the picture, at least 1×1. */
export function wholePixels(box: CropBox, source: { readonly width: number; readonly height: number }): CropBox {
  const width = Math.min(Math.max(Math.round(box.width), 1), source.width);
  const height = Math.min(Math.max(Math.round(box.height), 1), source.height);
  const left = Math.min(Math.round(box.left), source.width - width);
  const top = Math.min(Math.round(box.top), source.height - height);
  return { left, top, width, height };
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
