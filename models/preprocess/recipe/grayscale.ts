import { luma } from './luma.ts';

/** torchvision's RandomGrayscale, where it strikes: the luma in all three channels. In place; uint8 RGB [.., 3]. */
export function grayscale(pixels: Uint8Array): void {
  for (let i = 0; i < pixels.length; i += 3) {
    const grey = luma(pixels[i]!, pixels[i + 1]!, pixels[i + 2]!);
    pixels[i] = grey;
    pixels[i + 1] = grey;
    pixels[i + 2] = grey;
  }
}
