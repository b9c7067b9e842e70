/** A smooth function along one direction: φ(t) and φ'(t) at step t. */
export interface LinePoint {
  readonly step: number;
  readonly value: number;
  readonly slope: number;
}

export interface LineSearchOptions {
  /** Of the first trial. */
  readonly firstStep: number;
  /** What rounding alone may change a value by: below it only slopes are believed. */
  readonly valueNoise: number;
}

const DECREASE = 1e-4;
const CURVATURE = 0.9;
const TRIALS_MAX = 30;
const GROWTH = 4;

/**
 * A step that meets the strong Wolfe conditions (Nocedal and Wright 2006, algorithms 3.5 and 3.6, c₁ = 1e-4, c₂ = 0.9). Where the decrease is
 * below `valueNoise`, Hager and Zhang's approximate condition (2005, eq. 1.4) stands in for sufficient decrease, so that the last
 * digits of an optimum are reached. Undefined where no such step is found.
 * @param start φ(0), whose slope is negative
 */
export function wolfeStep(
  evaluate: (step: number) => LinePoint,
  start: LinePoint,
  options: LineSearchOptions,
): LinePoint | undefined {
  const isLow = (point: LinePoint) => hasDecreased(point, start, options.valueNoise);
  let previous = start;
  let step = options.firstStep;
  let trials = 0;
  for (; trials < TRIALS_MAX; trials++) {
    const point = evaluate(step);
    if (!isLow(point) || (previous !== start && point.value > previous.value + options.valueNoise)) {
      return zoom(previous, point);
    }
    if (isFlat(point, start)) return point;
    if (point.slope >= 0) return zoom(point, previous);
    previous = point;
    step *= GROWTH;
  }
  return undefined;

  /** Between `low`, which decreases enough, and `high`, which does not or lies beyond a minimum. */
  function zoom(low: LinePoint, high: LinePoint): LinePoint | undefined {
    for (; trials < TRIALS_MAX; trials++) {
      const point = evaluate(cubicMinimum(low, high));
      if (!isLow(point) || point.value > low.value + options.valueNoise) {
        high = point;
        continue;
      }
      if (isFlat(point, start)) return point;
      if (point.slope * (high.step - low.step) >= 0) high = low;
      low = point;
    }
    // A decrease without the wanted flatness is still progress.
    return low.step > 0 ? low : undefined;
  }
}

function hasDecreased(point: LinePoint, start: LinePoint, valueNoise: number): boolean {
  if (!Number.isFinite(point.value)) return false;
  if (point.value <= start.value + DECREASE * point.step * start.slope) return true;
  return point.value <= start.value + valueNoise && point.slope <= (2 * DECREASE - 1) * start.slope;
}

const isFlat = (point: LinePoint, start: LinePoint) => Math.abs(point.slope) <= -CURVATURE * start.slope;

/** Of the cubic through both points and slopes (Nocedal and Wright, eq. 3.59), kept off the ends so that the interval shrinks. */
function cubicMinimum(a: LinePoint, b: LinePoint): number {
  const width = b.step - a.step;
  const middle = a.step + width / 2;
  if (!Number.isFinite(b.value)) return a.step + width / 10;
  const d1 = a.slope + b.slope - (3 * (a.value - b.value)) / (a.step - b.step);
  const inside = d1 * d1 - a.slope * b.slope;
  if (!(inside >= 0)) return middle;
  const d2 = Math.sign(width) * Math.sqrt(inside);
  const step = b.step - width * ((b.slope + d2 - d1) / (b.slope - a.slope + 2 * d2));
  const share = (step - a.step) / width;
  return share > 0.1 && share < 0.9 ? step : Number.isFinite(share) && share <= 0.1 ? a.step + width / 10 : middle;
}
