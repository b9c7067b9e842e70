/** Mirrors left and right, in place; uint8 RGB [height, width, 3]. */
export function flipHorizontally(pixels: Uint8Array, width: number): void {
  for (let row = 0; row < pixels.length; row += 3 * width) {
    for (let left = row, right = row + 3 * (width - 1); left < right; left += 3, right -= 3) {
      for (let c = 0; c < 3; c++) {
        const kept = pixels[left + c]!;
        pixels[left + c] = pixels[right + c]!;
        pixels[right + c] = kept;
      }
    }
  }
}
