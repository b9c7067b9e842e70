/** Exponential moving average, started without bias (each value is weighted as if the series began with it). `span` as in "about the last `span` values". */
export function smooth(values: readonly number[], span: number): number[] {
  const decay = 1 - 2 / (span + 1);
  let sum = 0;
  let weight = 0;
  return values.map((value) => {
    sum = decay * sum + value;
    weight = decay * weight + 1;
    return sum / weight;
  });
}
