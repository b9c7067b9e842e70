/** Above it, r·a of `leftOf` would not be exact in a double. */
const TOTAL_MAX = 2 ** 26;
const DECIMALS_MAX = 6;

/**
 * Deals the positions 0, 1, 2, … out to parts in given proportions: which part a position goes to, and how many earlier positions that part
 * got. Both are computed, not counted, in O(log parts): a balanced binary tree over the parts, each node of which gives its left side
 * round(n·a/b) of its first n positions (the sequence of a Bresenham line). So among the first n positions of all, a part of share w has n·w
 * of them, give or take ½ for each level of the tree; with two parts never more than ½ off.
 */
export class Proportions {
  /** Shares as whole numbers. */
  readonly weights: readonly number[];
  readonly #root: Node;

  /** Weights are positive; they need not sum to anything. Decimals of up to six places are kept exactly. */
  constructor(weights: readonly number[]) {
    this.weights = wholeWeights(weights);
    this.#root = treeOf(this.weights, 0, this.weights.length);
  }

  at(position: number): { readonly part: number; readonly ordinal: number } {
    let node = this.#root;
    let ordinal = position;
    while ('left' in node) {
      const before = leftOf(node, ordinal);
      const isLeft = leftOf(node, ordinal + 1) > before;
      ordinal = isLeft ? before : ordinal - before;
      node = isLeft ? node.left : node.right;
    }
    return { part: node.part, ordinal };
  }
}

interface Leaf {
  readonly part: number;
}
interface Branch {
  readonly left: Node;
  readonly right: Node;
  readonly leftWeight: number;
  readonly weight: number;
}
type Node = Leaf | Branch;

function treeOf(weights: readonly number[], begin: number, end: number): Node {
  if (end - begin === 1) return { part: begin };
  const middle = (begin + end) >>> 1;
  const sum = (from: number, to: number) => weights.slice(from, to).reduce((total, weight) => total + weight, 0);
  return {
    left: treeOf(weights, begin, middle),
    right: treeOf(weights, middle, end),
    leftWeight: sum(begin, middle),
    weight: sum(begin, end),
  };
}

/** round(n·a/b), exact for n < 2^53 because a < b <= 2^26. */
function leftOf({ leftWeight, weight }: Branch, n: number): number {
  const rest = n % weight;
  return ((n - rest) / weight) * leftWeight + Math.floor((rest * leftWeight + Math.floor(weight / 2)) / weight);
}

function wholeWeights(weights: readonly number[]): number[] {
  for (let decimals = 0; decimals <= DECIMALS_MAX; decimals++) {
    const scaled = weights.map((weight) => weight * 10 ** decimals);
    const whole = scaled.map(Math.round);
    const fits = scaled.every((value, i) => whole[i]! >= 1 && Math.abs(value - whole[i]!) <= 1e-9 * value);
    if (!fits) continue;
    const divisor = whole.reduce(greatestCommonDivisor);
    const reduced = whole.map((value) => value / divisor);
    if (reduced.reduce((sum, value) => sum + value, 0) <= TOTAL_MAX) return reduced;
    break;
  }
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  // Room for the parts that are rounded up to 1.
  return weights.map((weight) => Math.max(1, Math.floor((weight / total) * (TOTAL_MAX - weights.length))));
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}
