/** [0, c0, c0+c1, …]. Float64: counts may pass 2^32 before they are checked. */
export function prefixSums(counts: readonly number[]): Float64Array {
  const sums = new Float64Array(counts.length + 1);
  counts.forEach((count, i) => {
    sums[i + 1] = sums[i]! + count;
  });
  return sums;
}

/** Index of the last of ascending `starts` (without the closing entry) that is at most `value`. */
export function lastAtMost(starts: Float64Array, value: number): number {
  let low = 0;
  let high = starts.length - 2;
  while (low < high) {
    const middle = (low + high + 1) >>> 1;
    if (starts[middle]! <= value) low = middle;
    else high = middle - 1;
  }
  return low;
}
