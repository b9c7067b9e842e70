import { upcastType, util } from '../../tf.ts';
import { input, type Kernel, type KernelTable } from './kernel.ts';

/** Running sum or product along an axis; `exclusive` leaves each element's own value out. */
function cumulative(aten: 'cumsum' | 'cumprod'): Kernel {
  const neutral = aten === 'cumsum' ? 0 : 1;
  return (scope, inputs, attrs) => {
    const x = input(inputs, 'x');
    const dtype = upcastType(x.dtype, 'int32');
    const axis = util.parseAxisParam(attrs['axis'], x.shape)[0] ?? 0;
    const { exclusive, reverse } = attrs;
    let values = dtype === x.dtype ? scope.in(x) : scope.cast(scope.in(x), dtype);
    if (reverse) values = scope.call('flip', values, [axis]);
    if (exclusive && x.shape[axis]! > 0) {
      const before = scope.call('slice.Tensor', values, axis, 0, x.shape[axis]! - 1, 1);
      // ATen counts paddings from the last axis, two numbers each.
      const paddings = [...new Array<number>(2 * (x.shape.length - 1 - axis)).fill(0), 1, 0];
      values = scope.call('constant_pad_nd', before, paddings, neutral);
    }
    values = scope.call(aten, values, axis, null);
    // ATen accumulates integers in 64 bits.
    values = x.dtype === 'float32' ? values : scope.cast(values, dtype);
    return scope.out(reverse ? scope.call('flip', values, [axis]) : values, dtype, x.shape);
  };
}

/** Equal values keep their order, which only a stable sort promises. */
const topK: Kernel = (scope, inputs, attrs) => {
  const x = input(inputs, 'x');
  const [values, positions] = scope.callMany('sort.stable', scope.in(x), true, -1, true);
  const shape = [...x.shape.slice(0, -1), attrs['k'] as number];
  const first = (handle: number) => scope.call('slice.Tensor', handle, -1, 0, attrs['k'], 1);
  return [scope.out(first(values!), x.dtype, shape), scope.out(scope.cast(first(positions!), 'int32'), 'int32', shape)];
};

/** Where each value would be inserted in its sorted row. */
const searchSorted: Kernel = (scope, inputs, attrs) => {
  const rows = input(inputs, 'sortedSequence');
  const values = input(inputs, 'values');
  const right = attrs['side'] === 'right';
  const found = scope.call('searchsorted.Tensor', scope.in(rows), scope.in(values), true, right, null, null);
  return scope.out(found, 'int32', values.shape);
};

/** What depends on the order along an axis. */
export const orderKernels: KernelTable = {
  Cumsum: cumulative('cumsum'),
  Cumprod: cumulative('cumprod'),
  TopK: topK,
  SearchSorted: searchSorted,
};
