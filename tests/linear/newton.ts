/** An independent solver for the tests: dense Newton with the exact Hessian, by Gaussian elimination. Only for a few variables. */
export interface NewtonProblem {
  readonly features: readonly (readonly number[])[];
  readonly labels: readonly number[];
  readonly classes: number;
  readonly l2: number;
}

/** Row k: weights of class k, then its bias. The biases sum to zero. */
export function newtonLogistic({ features, labels, classes, l2 }: NewtonProblem): number[][] {
  const width = features[0]!.length + 1;
  const rows = features.map((x) => [...x, 1]);
  const size = classes * width;
  let theta = new Array<number>(size).fill(0);
  for (let iteration = 0; iteration < 50; iteration++) {
    const gradient = new Array<number>(size).fill(0);
    const hessian = Array.from({ length: size }, () => new Array<number>(size).fill(0));
    rows.forEach((x, n) => {
      const z = Array.from({ length: classes }, (_, k) => x.reduce((s, v, d) => s + v * theta[k * width + d]!, 0));
      const top = Math.max(...z);
      const e = z.map((v) => Math.exp(v - top));
      const total = e.reduce((a, b) => a + b, 0);
      const p = e.map((v) => v / total);
      for (let k = 0; k < classes; k++) {
        for (let d = 0; d < width; d++) {
          gradient[k * width + d]! += ((p[k]! - (labels[n] === k ? 1 : 0)) * x[d]!) / rows.length;
          for (let j = 0; j < classes; j++) {
            const curvature = (p[k]! * ((j === k ? 1 : 0) - p[j]!)) / rows.length;
            for (let c = 0; c < width; c++) hessian[k * width + d]![j * width + c]! += curvature * x[d]! * x[c]!;
          }
        }
      }
    });
    for (let k = 0; k < classes; k++) {
      for (let d = 0; d < width - 1; d++) {
        gradient[k * width + d]! += l2 * theta[k * width + d]!;
        hessian[k * width + d]![k * width + d]! += l2;
      }
      // Shifting all biases changes nothing: pin their sum.
      for (let j = 0; j < classes; j++) hessian[k * width + width - 1]![j * width + width - 1]! += 1;
    }
    const step = solve(hessian, gradient);
    theta = theta.map((value, i) => value - step[i]!);
    if (Math.hypot(...step) < 1e-14) break;
  }
  return Array.from({ length: classes }, (_, k) => theta.slice(k * width, (k + 1) * width));
}

function solve(matrix: number[][], right: readonly number[]): number[] {
  const size = right.length;
  const rows = matrix.map((row, i) => [...row, right[i]!]);
  for (let i = 0; i < size; i++) {
    let pivot = i;
    for (let r = i + 1; r < size; r++) if (Math.abs(rows[r]![i]!) > Math.abs(rows[pivot]![i]!)) pivot = r;
    [rows[i], rows[pivot]] = [rows[pivot]!, rows[i]!];
    for (let r = i + 1; r < size; r++) {
      const factor = rows[r]![i]! / rows[i]![i]!;
      for (let c = i; c <= size; c++) rows[r]![c]! -= factor * rows[i]![c]!;
    }
  }
  const x = new Array<number>(size).fill(0);
  for (let i = size - 1; i >= 0; i--) {
    let sum = rows[i]![size]!;
    for (let c = i + 1; c < size; c++) sum -= rows[i]![c]! * x[c]!;
    x[i] = sum / rows[i]![i]!;
  }
  return x;
}
