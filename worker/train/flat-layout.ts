/**
 * All parameters' gradients live in one flat vector, in parameter order, followed by a few scalars that are summed with them.
 * Contiguous ranges of it (buckets) are reduced as soon as backward has finished their parameters.
 */
export interface FlatSlot {
  readonly name: string;
  readonly offset: number;
  readonly length: number;
}

export interface Bucket {
  readonly begin: number;
  /** Exclusive; floats. */
  readonly end: number;
  /** Parameters inside, as indices. The last bucket also carries the extras. */
  readonly parameters: readonly number[];
}

export interface FlatLayout {
  readonly slots: readonly FlatSlot[];
  readonly parameterFloats: number;
  /** parameterFloats + extras. */
  readonly totalFloats: number;
  readonly buckets: readonly Bucket[];
  /** Bucket index of each parameter. */
  readonly bucketOf: readonly number[];
}

/** Small enough that the first buckets travel early, large enough that per-message costs vanish. */
const BUCKET_FLOATS = 512 * 1024;

/** @param extras scalars that ride behind the gradients, each a sum over samples */
export function flatLayout(
  parameters: readonly { readonly name: string; readonly shape: readonly number[] }[],
  extras: number,
): FlatLayout {
  const slots: FlatSlot[] = [];
  let offset = 0;
  for (const { name, shape } of parameters) {
    const length = shape.reduce((product, side) => product * side, 1);
    slots.push({ name, offset, length });
    offset += length;
  }
  const parameterFloats = offset;
  const totalFloats = parameterFloats + extras;
  const buckets: Bucket[] = [];
  const bucketOf: number[] = [];
  let begin = 0;
  let inside: number[] = [];
  slots.forEach((slot, index) => {
    inside.push(index);
    bucketOf.push(buckets.length);
    const end = slot.offset + slot.length;
    const isLast = index === slots.length - 1;
    if (isLast || end - begin >= BUCKET_FLOATS) {
      buckets.push({ begin, end: isLast ? totalFloats : end, parameters: inside });
      begin = end;
      inside = [];
    }
  });
  return { slots, parameterFloats, totalFloats, buckets, bucketOf };
}
