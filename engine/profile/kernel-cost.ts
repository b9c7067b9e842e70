import { bytesOf, elementsOf, type KernelEvent, type TensorShape } from './record.ts';

/**
 * What a kernel had to do, from its arguments' shapes: floating-point operations (a multiply and an add are two; only products count),
 * and the bytes that it must at least read and write once.
 */
export interface KernelCost {
  readonly flops: number;
  readonly bytes: number;
}

type Flops = (event: KernelEvent) => number;

const side = ({ shape }: TensorShape, fromEnd: number): number => shape[shape.length - fromEnd] ?? 1;

/** x [.., I] by a weight [O, I], or a gradient [.., O] by it: every element of x meets every element of a row (column). */
const rowsByWeight: Flops = ({ inputs: [x, weight] }) =>
  x && weight ? (2 * elementsOf(x) * elementsOf(weight)) / side(x, 1) : 0;

/** dyᵀ·x over all rows. */
const rowsByRows: Flops = ({ inputs: [dy, x] }) => (dy && x ? 2 * elementsOf(dy) * side(x, 1) : 0);

/** [.., M, K]·[.., K, N]. The inner side is the last of the first factor, or of what stands at `first`. */
const product =
  (first = 0): Flops =>
  ({ inputs, outputs: [out] }) =>
    out && inputs[first] ? 2 * elementsOf(out) * side(inputs[first], 1) : 0;

/** Pairs of a query and a key it sees, per item. */
export function visiblePairs(tokens: number, causal: boolean): number {
  return causal ? (tokens * (tokens + 1)) / 2 : tokens * tokens;
}

/** Scores and mixing: two products over the visible pairs. Backward needs four; that it recomputes the scores is its own affair. */
const attention =
  (products: number, packed: number): Flops =>
  ({ inputs, flags }) => {
    const qkv = inputs[packed];
    if (qkv === undefined || qkv.shape.length !== 3) return 0;
    const [batch, tokens, width3] = qkv.shape as [number, number, number];
    return 2 * products * batch * visiblePairs(tokens, flags.at(-1) ?? false) * (width3 / 3);
  };

/** Every output element (or output gradient's) meets one filter. */
const convolution: Flops = ({ inputs: [, weight], outputs: [out] }) =>
  weight && out ? (2 * elementsOf(out) * elementsOf(weight)) / weight.shape[0]! : 0;
const convolutionGradients: Flops = ({ inputs: [dOut, , weight], outputs }) =>
  dOut && weight
    ? outputs.filter(({ shape }) => shape.length === weight.shape.length).length *
      ((2 * elementsOf(dOut) * elementsOf(weight)) / weight.shape[0]!)
    : 0;

/** tfjs's BatchMatMul, flags [transposeA, transposeB]. */
const tfjsProduct: Flops = ({ inputs: [a], outputs: [out], flags: [transposed] }) =>
  a && out ? 2 * elementsOf(out) * side(a, transposed ? 2 : 1) : 0;

const FLOPS: Readonly<Record<string, Flops>> = {
  linear: rowsByWeight,
  linearGelu: rowsByWeight,
  linearInputGradient: rowsByWeight,
  geluLinearInputGradient: rowsByWeight,
  linearWeightGradient: rowsByRows,
  attention: attention(2, 0),
  attentionGradient: attention(4, 1),
  conv2d: convolution,
  conv2dGradient: convolutionGradients,
  'aten::linear': rowsByWeight,
  'aten::matmul': product(),
  'aten::mm': product(),
  'aten::bmm': product(),
  'aten::addmm': product(1),
  'aten::baddbmm': product(1),
  'aten::convolution': convolution,
  'aten::convolution_backward': convolutionGradients,
  BatchMatMul: tfjsProduct,
  _FusedMatMul: tfjsProduct,
};

/** Optimiser kernels read and write their parameters and slots, and read the gradient. */
const UPDATES = new Set(['adamW', 'momentum', 'lion', 'lambMoments', 'lambStep']);

export function kernelCost(event: KernelEvent): KernelCost {
  return { flops: FLOPS[event.name]?.(event) ?? 0, bytes: bytesMoved(event) };
}

function bytesMoved(event: KernelEvent): number {
  const { name, inputs, outputs, aliases, hostBytes } = event;
  const sum = (tensors: readonly TensorShape[]) => tensors.reduce((total, tensor) => total + bytesOf(tensor), 0);
  if (name === 'release') return 0;
  if (UPDATES.has(name)) return 2 * sum(inputs) + hostBytes;
  // The target of addInto and addVectors is read and written.
  if (name === 'addVectors') return 1.5 * hostBytes;
  if (name === 'addInto') return sum(inputs) + 2 * hostBytes;
  const inPlace = aliases.length > 0 && name.endsWith('_');
  // A view moves nothing.
  if (outputs.length === 0 && aliases.length > 0 && !inPlace) return 0;
  return sum(inputs) + sum(outputs) + (inPlace ? sum(aliases) : 0) + hostBytes;
}
