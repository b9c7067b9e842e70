import { CoveyError } from '../../../common/errors.ts';
import { type DataType, upcastType } from '../../tf.ts';
import { input, type Kernel, type KernelTable } from './kernel.ts';

/** Keeps the input's type. */
function unary(aten: string): Kernel {
  return (scope, inputs) => {
    const x = input(inputs, 'x');
    return scope.out(scope.call(aten, scope.in(x)), x.dtype, x.shape);
  };
}

/** Computes in floating point whatever comes in. */
function floating(aten: string, ...args: unknown[]): Kernel {
  return (scope, inputs) => {
    const x = input(inputs, 'x');
    const result = scope.call(aten, scope.float(x), ...args);
    return scope.out(result, 'float32', x.shape);
  };
}

function predicate(aten: string): Kernel {
  return (scope, inputs) => {
    const x = input(inputs, 'x');
    return scope.out(scope.call(aten, scope.in(x)), 'bool', x.shape);
  };
}

function binary(aten: string, dtype?: DataType): Kernel {
  return (scope, inputs) => {
    const a = input(inputs, 'a');
    return scope.out(scope.call(aten, scope.in(a), scope.in(input(inputs, 'b'))), dtype ?? a.dtype);
  };
}

/** Arithmetic of truth values is done in integers: ATen refuses to subtract them. */
function arithmetic(aten: string): Kernel {
  return (scope, inputs, attrs) => {
    const a = input(inputs, 'a');
    if (a.dtype !== 'bool') return binary(aten)(scope, inputs, attrs);
    const result = scope.call(
      aten,
      scope.cast(scope.in(a), 'int32'),
      scope.cast(scope.in(input(inputs, 'b')), 'int32'),
    );
    return scope.out(scope.cast(result, 'bool'), 'bool');
  };
}

const divide: Kernel = (scope, inputs) => {
  const a = input(inputs, 'a');
  const quotient = scope.call('div.Tensor', scope.in(a), scope.in(input(inputs, 'b')));
  return scope.out(a.dtype === 'int32' ? scope.cast(scope.call('trunc', quotient), 'int32') : quotient, a.dtype);
};

const floorDivide: Kernel = (scope, inputs) => {
  const quotient = scope.call('div.Tensor_mode', scope.in(input(inputs, 'a')), scope.in(input(inputs, 'b')), 'floor');
  return scope.out(scope.cast(quotient, 'int32'), 'int32');
};

const power: Kernel = (scope, inputs) => {
  const a = input(inputs, 'a');
  const b = input(inputs, 'b');
  if (a.dtype !== 'int32') return scope.out(scope.call('pow.Tensor_Tensor', scope.in(a), scope.in(b)), a.dtype);
  const result = scope.call('pow.Tensor_Tensor', scope.double(scope.in(a)), scope.double(scope.in(b)));
  return scope.out(scope.cast(result, 'int32'), 'int32');
};

const squaredDifference: Kernel = (scope, inputs) => {
  const a = input(inputs, 'a');
  const difference = scope.call('sub.Tensor', scope.in(a), scope.in(input(inputs, 'b')));
  return scope.out(scope.call('mul.Tensor', difference, difference), a.dtype);
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
  ...tableOf({ Add: 'add.Tensor', Sub: 'sub.Tensor', Multiply: 'mul.Tensor' }, arithmetic),
  ...tableOf({ Maximum: 'maximum', Minimum: 'minimum', Mod: 'remainder.Tensor' }, (aten) => binary(aten)),
  ...tableOf({ LogicalAnd: 'logical_and', LogicalOr: 'logical_or', LogicalXor: 'logical_xor' }, (aten) =>
    binary(aten, 'bool'),
  ),
  RealDiv: divide,
  FloorDiv: floorDivide,
  Pow: power,
  SquaredDifference: squaredDifference,
  AddN: addN,
  ClipByValue: clip,
  Relu6: floating('clamp', 0, 6),
  LeakyRelu: leakyRelu,
  Step: step,
  Select: select,
};
