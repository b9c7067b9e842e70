import { CoveyError } from '../../../common/errors.ts';
import type { Handle } from '../../native/load.ts';
import { type DataType, type TensorInfo, upcastType } from '../../tf.ts';
import { input, type Kernel, type KernelScope, type KernelTable } from './kernel.ts';

/** ATen refuses to compute with truth values: they go as integers, and what is not 0 comes back as true. */
function throughIntegers(
  scope: KernelScope,
  tensors: readonly TensorInfo[],
  compute: (...handles: Handle[]) => Handle,
): Handle {
  const result = compute(...tensors.map((x) => scope.cast(scope.in(x), 'int32')));
  return scope.cast(scope.cast(result, 'int32'), 'bool');
}

/** Floats as whole numbers the way JavaScript's typed arrays take them: cut off, and 0 for what is not finite. */
function toIntegers(scope: KernelScope, values: Handle, dtype: DataType): Handle {
  return scope.cast(scope.cast(scope.call('nan_to_num', values, 0, 0, 0), 'int32'), dtype);
}

/** Keeps the input's type. */
function unary(aten: string, ...args: unknown[]): Kernel {
  return (scope, inputs) => {
    const x = input(inputs, 'x');
    const compute = (values: Handle) => scope.call(aten, values, ...args);
    if (x.dtype === 'bool') return scope.out(throughIntegers(scope, [x], compute), 'bool', x.shape);
    return scope.out(compute(scope.in(x)), x.dtype, x.shape);
  };
}

/** Computes in floating point whatever comes in. Most of tfjs's ops cast to it beforehand; the others keep the type, as here. */
function floating(aten: string): Kernel {
  return (scope, inputs) => {
    const x = input(inputs, 'x');
    const result = scope.call(aten, scope.float(x));
    if (x.dtype === 'float32' || aten === 'exp') return scope.out(result, 'float32', x.shape);
    return scope.out(toIntegers(scope, result, x.dtype), x.dtype, x.shape);
  };
}

function predicate(aten: string): Kernel {
  return (scope, inputs) => {
    const x = input(inputs, 'x');
    return scope.out(scope.call(aten, scope.in(x)), 'bool', x.shape);
  };
}

/** Keeps the first input's type, or makes truth values. */
function binary(aten: string, result?: 'bool'): Kernel {
  return (scope, inputs) => {
    const a = input(inputs, 'a');
    const b = input(inputs, 'b');
    const dtype = result ?? a.dtype;
    const value = scope.call(aten, scope.in(a), scope.in(b));
    // Floats may be bf16 and stay so; integers may have become floats or 64 bits wide on the way.
    return scope.out(dtype === 'int32' ? scope.cast(value, dtype) : value, dtype);
  };
}

/** Numbers to numbers of the same type. */
function arithmetic(aten: string): Kernel {
  const ofNumbers = binary(aten);
  return (scope, inputs, attrs) => {
    const a = input(inputs, 'a');
    if (a.dtype !== 'bool') return ofNumbers(scope, inputs, attrs);
    const tensors = [a, input(inputs, 'b')];
    return scope.out(
      throughIntegers(scope, tensors, (x, y) => scope.call(aten, x, y)),
      'bool',
    );
  };
}

/** Integers in fp64, where they are exact, and where dividing by 0 is no error. */
function inDoubles(aten: string): Kernel {
  return (scope, inputs) => {
    const a = input(inputs, 'a');
    const b = input(inputs, 'b');
    if (a.dtype === 'float32' || a.dtype === 'complex64')
      return scope.out(scope.call(aten, scope.in(a), scope.in(b)), a.dtype);
    const result = scope.call(aten, scope.double(scope.in(a)), scope.double(scope.in(b)));
    return scope.out(toIntegers(scope, result, a.dtype), a.dtype);
  };
}

const floorDivide: Kernel = (scope, inputs) => {
  const [a, b] = [input(inputs, 'a'), input(inputs, 'b')].map((x) => scope.double(scope.in(x)));
  return scope.out(toIntegers(scope, scope.call('div.Tensor_mode', a, b, 'floor'), 'int32'), 'int32');
};

const squaredDifference: Kernel = (scope, inputs) => {
  const a = input(inputs, 'a');
  const b = input(inputs, 'b');
  const squared = (x: Handle, y: Handle) => {
    const difference = scope.call('sub.Tensor', x, y);
    return scope.call('mul.Tensor', difference, difference);
  };
  if (a.dtype === 'bool') return scope.out(throughIntegers(scope, [a, b], squared), 'bool');
  return scope.out(squared(scope.in(a), scope.in(b)), a.dtype);
};

const addN: Kernel = (scope, inputs) => {
  const terms = Object.values(inputs);
  const [first, ...others] = terms;
  if (first === undefined) throw new CoveyError('INVALID_ARGUMENT', 'Cannot add tensors: none were given');
  const sum = others.reduce(
    (total, term) => scope.call('add.Tensor', total, scope.in(term)),
    scope.alias(scope.in(first)),
  );
  return scope.out(sum, first.dtype, first.shape);
};

const clip: Kernel = (scope, inputs, attrs) => {
  const x = input(inputs, 'x');
  return scope.out(scope.call('clamp', scope.in(x), attrs['clipValueMin'], attrs['clipValueMax']), x.dtype, x.shape);
};

/** 1 where x > 0, alpha elsewhere; NaN stays. */
const step: Kernel = (scope, inputs, attrs) => {
  const x = input(inputs, 'x');
  const positive = scope.call('gt.Scalar', scope.in(x), 0);
  const one = scope.call('ones_like', scope.in(x));
  const chosen = scope.call('where.self', positive, one, scope.call('full_like', scope.in(x), attrs['alpha']));
  return scope.out(scope.call('where.self', scope.call('isnan', scope.in(x)), scope.in(x), chosen), x.dtype, x.shape);
};

const leakyRelu: Kernel = (scope, inputs, attrs) => {
  const x = input(inputs, 'x');
  return scope.out(scope.call('leaky_relu', scope.float(x), attrs['alpha']), 'float32', x.shape);
};

const select: Kernel = (scope, inputs) => {
  const condition = input(inputs, 'condition');
  const t = input(inputs, 't');
  const e = input(inputs, 'e');
  const missing = t.shape.length - condition.shape.length;
  let mask = scope.in(condition);
  // tfjs lines a condition of lower rank up with the first axes, ATen with the last.
  if (missing > 0 && condition.shape.length > 0) {
    mask = scope.call('view', mask, [...condition.shape, ...new Array<number>(missing).fill(1)]);
  }
  const shape = missing >= 0 ? t.shape : undefined;
  return scope.out(scope.call('where.self', mask, scope.in(t), scope.in(e)), upcastType(t.dtype, e.dtype), shape);
};

/** x where x ≥ 0, alpha·x below; alpha is a tensor that broadcasts. */
const prelu: Kernel = (scope, inputs) => {
  const x = input(inputs, 'x');
  const scaled = scope.call('mul.Tensor', scope.float(x), scope.float(input(inputs, 'alpha')));
  const kept = scope.backend.isHalf(x) ? scope.cast(scope.in(x), 'float32') : scope.float(x);
  const chosen = scope.call('where.self', scope.call('lt.Scalar', scope.in(x), 0), scope.cast(scaled, 'float32'), kept);
  return scope.out(chosen, 'float32', x.shape);
};

/** From elu's result: dy where y ≥ 0, dy·(y + 1) below. */
const eluGradient: Kernel = (scope, inputs) => {
  const y = input(inputs, 'y');
  const dy = scope.in(input(inputs, 'dy'));
  return scope.out(scope.call('elu_backward', dy, 1, 1, 1, true, scope.in(y)), 'float32', y.shape);
};

const FLOATING = {
  Acos: 'acos',
  Acosh: 'acosh',
  Asin: 'asin',
  Asinh: 'asinh',
  Atan: 'atan',
  Atanh: 'atanh',
  Cos: 'cos',
  Cosh: 'cosh',
  Elu: 'elu',
  Erf: 'erf',
  Exp: 'exp',
  Expm1: 'expm1',
  Log: 'log',
  Log1p: 'log1p',
  Reciprocal: 'reciprocal',
  Rsqrt: 'rsqrt',
  Selu: 'selu',
  Sigmoid: 'sigmoid',
  Sin: 'sin',
  Sinh: 'sinh',
  Softplus: 'softplus',
  Sqrt: 'sqrt',
  Tan: 'tan',
  Tanh: 'tanh',
} as const;
const SAME_TYPE = {
  Abs: 'abs',
  Ceil: 'ceil',
  Floor: 'floor',
  Neg: 'neg',
  Round: 'round',
  Square: 'square',
  Relu: 'relu',
  Sign: 'sign',
} as const;
const ARITHMETIC = {
  Add: 'add.Tensor',
  Sub: 'sub.Tensor',
  Multiply: 'mul.Tensor',
  Maximum: 'maximum',
  Minimum: 'minimum',
  Atan2: 'atan2',
} as const;
const COMPARISONS = {
  Equal: 'eq',
  NotEqual: 'ne',
  Greater: 'gt',
  GreaterEqual: 'ge',
  Less: 'lt',
  LessEqual: 'le',
} as const;

function tableOf(names: Readonly<Record<string, string>>, kernel: (aten: string) => Kernel): KernelTable {
  return Object.fromEntries(Object.entries(names).map(([name, aten]) => [name, kernel(aten)]));
}

/** One result element per input element (broadcast). */
export const elementwiseKernels: KernelTable = {
  ...tableOf(FLOATING, floating),
  ...tableOf(SAME_TYPE, unary),
  ...tableOf(COMPARISONS, (aten) => binary(`${aten}.Tensor`, 'bool')),
  ...tableOf({ IsFinite: 'isfinite', IsInf: 'isinf', IsNan: 'isnan', LogicalNot: 'logical_not' }, predicate),
  ...tableOf(ARITHMETIC, arithmetic),
  ...tableOf({ LogicalAnd: 'logical_and', LogicalOr: 'logical_or', LogicalXor: 'logical_xor' }, (aten) =>
    binary(aten, 'bool'),
  ),
  RealDiv: inDoubles('div.Tensor'),
  Mod: inDoubles('remainder.Tensor'),
  Pow: inDoubles('pow.Tensor_Tensor'),
  FloorDiv: floorDivide,
  SquaredDifference: squaredDifference,
  AddN: addN,
  ClipByValue: clip,
  Relu6: unary('clamp', 0, 6),
  Prelu: prelu,
  EluGrad: eluGradient,
  BitwiseAnd: binary('bitwise_and.Tensor'),
  LeakyRelu: leakyRelu,
  Step: step,
  Select: select,
};
