/**
 * Fixed positions of a square of patches, row-major: MAE's `util/pos_embed.py:get_2d_sincos_pos_embed` (Vaswani et al. 2017, §3.5, in
 * two dimensions). The first half of the width says the column, the second the row, each as [sines | cosines] of
 * place / 10000^(i / (width/4)). A class token has zeros. (MoCo v3's code has the halves the other way round.)
 *
 * @param width a multiple of 4
 * @returns [side² (+ 1), width]
 */
export function sincosPositions(side: number, width: number, classToken: boolean): Float32Array {
  const quarter = width / 4;
  const first = classToken ? 1 : 0;
  const out = new Float32Array((first + side * side) * width);
  const write = (offset: number, place: number) => {
    for (let i = 0; i < quarter; i++) {
      const angle = place / 10_000 ** (i / quarter);
      out[offset + i] = Math.sin(angle);
      out[offset + quarter + i] = Math.cos(angle);
    }
  };
  for (let row = 0; row < side; row++) {
    for (let column = 0; column < side; column++) {
      const offset = (first + row * side + column) * width;
      write(offset, column);
      write(offset + 2 * quarter, row);
    }
  }
  return out;
}
