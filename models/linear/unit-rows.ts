/** Rows [N, width] divided by their length, on the host; rows of zeros stay. */
export function unitRows(values: Float32Array, width: number): Float32Array {
  const unit = new Float32Array(values.length);
  for (let begin = 0; begin < values.length; begin += width) {
    let squares = 0;
    for (let d = begin; d < begin + width; d++) squares += values[d]! ** 2;
    const length = Math.sqrt(squares) || 1;
    for (let d = begin; d < begin + width; d++) unit[d] = values[d]! / length;
  }
  return unit;
}
