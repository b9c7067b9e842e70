import { type LinePoint, wolfeStep } from './line-search.ts';

/** A smooth function of a vector. */
export interface SmoothFunction {
  readonly size: number;
  /** The value at x; writes the gradient. */
  evaluate(x: Float64Array, gradient: Float64Array): number;
  /** Relative size of what rounding may change a value by. */
  readonly relativeNoise: number;
}

export interface LbfgsOptions {
  /** Ends where ‖gradient‖ ≤ this. */
  readonly gradientNormMax: number;
  readonly iterationsMax: number;
}

export interface Minimum {
  readonly x: Float64Array;
  readonly value: number;
  readonly gradientNorm: number;
  readonly iterations: number;
  /** Values and gradients computed: the cost. */
  readonly evaluations: number;
  readonly converged: boolean;
}

/** Pairs kept: Nocedal and Wright recommend 3 to 20; memory is two vectors a pair. */
const PAIRS_MAX = 20;

interface Pair {
  readonly step: Float64Array;
  readonly change: Float64Array;
  /** 1/(stepᵀchange) */
  readonly rho: number;
}

/** L-BFGS (Liu and Nocedal 1989; Nocedal and Wright 2006, algorithms 7.4 and 7.5) in fp64, from `start`, which is not changed. */
export function minimize(f: SmoothFunction, start: Float64Array, options: LbfgsOptions): Minimum {
  let x = Float64Array.from(start);
  let gradient = new Float64Array(f.size);
  let value = f.evaluate(x, gradient);
  let evaluations = 1;
  let iterations = 0;
  const pairs: Pair[] = [];
  while (norm(gradient) > options.gradientNormMax && iterations < options.iterationsMax) {
    const direction = descentDirection(gradient, pairs);
    const nextX = new Float64Array(f.size);
    const nextGradient = new Float64Array(f.size);
    let evaluatedAt = Number.NaN;
    const evaluateAt = (step: number): LinePoint => {
      for (let i = 0; i < f.size; i++) nextX[i] = x[i]! + step * direction[i]!;
      evaluations++;
      evaluatedAt = step;
      const nextValue = f.evaluate(nextX, nextGradient);
      return { step, value: nextValue, slope: dot(nextGradient, direction) };
    };
    const slope = dot(gradient, direction);
    const found = wolfeStep(
      evaluateAt,
      { step: 0, value, slope },
      { firstStep: pairs.length === 0 ? 1 / norm(gradient) : 1, valueNoise: f.relativeNoise * Math.abs(value) },
    );
    if (found === undefined) {
      if (pairs.length === 0) break;
      // What the curvature pairs say is wrong here: begin again with steepest descent.
      pairs.length = 0;
      continue;
    }
    if (evaluatedAt !== found.step) evaluateAt(found.step);
    iterations++;
    remember(pairs, { x, gradient }, { x: nextX, gradient: nextGradient });
    x = nextX;
    gradient = nextGradient;
    value = found.value;
  }
  const gradientNorm = norm(gradient);
  return { x, value, gradientNorm, iterations, evaluations, converged: gradientNorm <= options.gradientNormMax };
}

interface Place {
  readonly x: Float64Array;
  readonly gradient: Float64Array;
}

function remember(pairs: Pair[], from: Place, to: Place): void {
  const step = to.x.map((value, i) => value - from.x[i]!);
  const change = to.gradient.map((value, i) => value - from.gradient[i]!);
  const curvature = dot(step, change);
  // Curvature below rounding would blow the inverse up.
  if (curvature <= 1e-12 * norm(step) * norm(change)) return;
  pairs.push({ step, change, rho: 1 / curvature });
  if (pairs.length > PAIRS_MAX) pairs.shift();
}

/** −H·gradient by the two-loop recursion. */
function descentDirection(gradient: Float64Array, pairs: readonly Pair[]): Float64Array {
  const direction = gradient.map((value) => -value);
  const alphas = new Float64Array(pairs.length);
  for (let p = pairs.length - 1; p >= 0; p--) {
    const { step, change, rho } = pairs[p]!;
    alphas[p] = rho * dot(step, direction);
    addScaled(direction, change, -alphas[p]!);
  }
  const newest = pairs.at(-1);
  if (newest !== undefined) {
    const scale = 1 / (newest.rho * dot(newest.change, newest.change));
    for (let i = 0; i < direction.length; i++) direction[i]! *= scale;
  }
  pairs.forEach(({ step, change, rho }, p) => {
    addScaled(direction, step, alphas[p]! - rho * dot(change, direction));
  });
  return direction;
}

function addScaled(target: Float64Array, source: Float64Array, scale: number): void {
  for (let i = 0; i < target.length; i++) target[i]! += scale * source[i]!;
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

const norm = (values: Float64Array) => Math.sqrt(dot(values, values));
