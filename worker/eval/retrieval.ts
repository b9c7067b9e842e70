/** Places of the right answers, 0 = first, and what open_clip makes of them (open_clip_train/train.py: `get_clip_metrics`). */

const RECALLS = [1, 5, 10];

/**
 * Place of `truth` among the candidates of a row of similarities. Ties go to the candidate that comes first. `counted` leaves candidates out.
 */
export function placeOf(similarities: Float32Array, truth: number, counted?: Uint8Array): number {
  const own = similarities[truth]!;
  let place = 0;
  for (let j = 0; j < similarities.length; j++) {
    if (counted !== undefined && counted[j] === 0) continue;
    const similarity = similarities[j]!;
    if (similarity > own || (similarity === own && j < truth)) place++;
  }
  return place;
}

/** `<name>_mean_rank`, `<name>_median_rank` (from 1), `<name>_R@1`, `@5`, `@10`. */
export function retrievalMetrics(name: string, places: readonly number[]): Record<string, number> {
  const sorted = [...places].sort((a, b) => a - b);
  const mean = sorted.reduce((sum, place) => sum + place, 0) / sorted.length;
  const recalls = RECALLS.map((k) => [`${name}_R@${k}`, shareWithin(places, k)] as const);
  return {
    [`${name}_mean_rank`]: mean + 1,
    [`${name}_median_rank`]: Math.floor(median(sorted)) + 1,
    ...Object.fromEntries(recalls),
  };
}

/** Share of places among the first `count`. */
export function shareWithin(places: readonly number[], count: number): number {
  return places.filter((place) => place < count).length / places.length;
}

/** numpy's: the mean of the two in the middle. */
function median(sorted: readonly number[]): number {
  const middle = sorted.length / 2;
  return sorted.length % 2 === 1 ? sorted[Math.floor(middle)]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
