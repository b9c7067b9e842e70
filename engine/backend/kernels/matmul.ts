import { CoveyError } from '../../../common/errors.ts';
import type { Handle } from '../../native/load.ts';
import { backend_util, broadcast_util, type Tensor, type TensorInfo, upcastType, util } from '../../tf.ts';
import { activated } from './activated.ts';
import { input, type Kernel, type KernelScope, type KernelTable } from './kernel.ts';

interface Product {
  readonly handle: Handle;
  readonly shape: number[];
}

/** a·b over the last two axes, the others broadcast. Integers go through fp64, which is exact for them. */
function product(scope: KernelScope, a: TensorInfo, b: TensorInfo, transposeA: boolean, transposeB: boolean): Product {
  const sides = (tensor: TensorInfo, transposed: boolean): [number, number] => {
    const [rows, columns] = tensor.shape.slice(-2) as [number, number];
    return transposed ? [columns, rows] : [rows, columns];
  };
  util.assert(
    a.shape.length >= 2 && b.shape.length >= 2,
    () => `Cannot multiply [${a.shape}] by [${b.shape}]: both need two axes or more`,
  );
  const [rows, inner] = sides(a, transposeA);
  const [innerB, columns] = sides(b, transposeB);
  if (inner !== innerB) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot multiply [${a.shape}] by [${b.shape}]: inner sides are ${inner} and ${innerB}`,
    );
  }
  const swapped = (tensor: TensorInfo, transposed: boolean): Handle =>
    transposed ? scope.call('transpose.int', scope.in(tensor), -2, -1) : scope.in(tensor);
  let left = swapped(a, transposeA);
  let right = swapped(b, transposeB);
  const batch = broadcast_util.assertAndGetBroadcastShape(a.shape.slice(0, -2), b.shape.slice(0, -2));
  const shape = [...batch, rows, columns];
  if (a.dtype !== 'float32' || b.dtype !== 'float32') {
    const exact = scope.call('matmul', scope.double(left), scope.double(right));
    return { handle: scope.cast(exact, upcastType(a.dtype, b.dtype)), shape };
  }
  // A bf16 operand meets a fp32 one where plain tfjs code multiplies activations by a master weight: the product is fp32, as everywhere in tfjs.
  if (scope.backend.isHalf(a) !== scope.backend.isHalf(b)) {
    left = scope.cast(left, 'float32');
    right = scope.cast(right, 'float32');
  }
  return { handle: scope.call('matmul', left, right), shape };
}

const batchMatMul: Kernel = (scope, inputs, attrs) => {
  const a = input(inputs, 'a');
  const b = input(inputs, 'b');
  const { handle, shape } = product(scope, a, b, attrs['transposeA'], attrs['transposeB']);
  return scope.out(handle, upcastType(a.dtype, b.dtype), shape);
};

const fusedMatMul: Kernel = (scope, inputs, attrs) => {
  const { handle, shape } = product(
    scope,
    input(inputs, 'a'),
    input(inputs, 'b'),
    attrs['transposeA'],
    attrs['transposeB'],
  );
  const { bias, preluActivationWeights } = inputs;
  const sum = bias ? scope.call('add.Tensor', handle, scope.in(bias)) : handle;
  const result = activated(scope, sum, {
    activation: attrs['activation'] ?? undefined,
    alpha: attrs['leakyreluAlpha'],
    slope: preluActivationWeights && scope.in(preluActivationWeights),
  });
  return scope.out(result, 'float32', shape);
};

/** One or two operands, as tfjs allows; its own decoder reports a malformed equation. */
const einsum: Kernel = (scope, inputs, attrs) => {
  const operands = Object.values(inputs);
  const equation = attrs['equation'] as string;
  const { allDims, idDims } = backend_util.decodeEinsumEquation(equation, operands.length);
  backend_util.checkEinsumDimSizes(allDims.length, idDims, operands as unknown as Tensor[]);
  const dtype = operands.reduce((type, { dtype }) => upcastType(type, dtype), operands[0]!.dtype);
  // Integers go through fp64, as in `product`.
  const exact = dtype === 'int32' || dtype === 'bool';
  const handles = operands.map((operand) =>
    exact ? scope.double(scope.in(operand)) : scope.cast(scope.in(operand), dtype),
  );
  const result = scope.call('einsum', equation, handles);
  return scope.out(exact ? scope.cast(result, dtype) : result, dtype);
};

export const matmulKernels: KernelTable = { BatchMatMul: batchMatMul, _FusedMatMul: fusedMatMul, Einsum: einsum };
