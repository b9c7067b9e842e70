/** Some rows of [N, columns], in the order given: [rows.length, columns]. */
export function pickedRows(values: Float32Array, columns: number, rows: ArrayLike<number>): Float32Array {
  const picked = new Float32Array(rows.length * columns);
  for (let i = 0; i < rows.length; i++) {
    const row = rows[i]!;
    picked.set(values.subarray(row * columns, (row + 1) * columns), i * columns);
  }
  return picked;
}
