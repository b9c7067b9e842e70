import { CoveyError } from '../../../common/errors.ts';
import type { Handle } from '../../native/load.ts';
import { broadcast_util, type TensorInfo, upcastType } from '../../tf.ts';
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

function activated(
  scope: KernelScope,
  handle: Handle,
  activation: string | undefined,
  alpha: number,
  slope?: TensorInfo,
): Handle {
  switch (activation) {
    case undefined:
    case 'linear':
      return handle;
    case 'relu':
    case 'elu':
    case 'sigmoid':
      return scope.call(activation, handle);
    case 'relu6':
      return scope.call('clamp', handle, 0, 6);
    case 'leakyrelu':
      return scope.call('leaky_relu', handle, alpha);
    case 'prelu': {
      const scaled = scope.call('mul.Tensor', handle, scope.in(slope!));
      return scope.call('where.self', scope.call('ge.Scalar', handle, 0), handle, scaled);
    }
    default:
      throw new CoveyError('UNSUPPORTED', `Cannot fuse activation ${activation} into a product`);
  }
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
  const alpha = attrs['leakyreluAlpha'];
  return scope.out(
    activated(scope, sum, attrs['activation'] ?? undefined, alpha, preluActivationWeights),
    'float32',
    shape,
  );
};

export const matmulKernels: KernelTable = { BatchMatMul: batchMatMul, _FusedMatMul: fusedMatMul };
