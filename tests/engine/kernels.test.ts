import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RandomStream } from '../../common/random.ts';
import { type FallbackUse, fallbackUses, loadEngine, tf, toCompute } from '../../engine/index.ts';
import { hasTorch } from '../support/engines.ts';

/** Values in [-2, 2), some of them equal, drawn from the shape alone. */
function values(shape: readonly number[]): Float32Array {
  const random = new RandomStream('kernels', shape.length, ...shape);
  return Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => Math.round(random.normal() * 8) / 8);
}
const floats = (...shape: number[]) => tf.tensor(values(shape), shape);
const ints = (...shape: number[]) =>
  tf.tensor(
    Int32Array.from(values(shape), (x) => Math.round(x * 3)),
    shape,
    'int32',
  );
const gradient = (f: (x: tf.Tensor) => tf.Tensor, x: tf.Tensor) =>
  tf.grad((y) => tf.sum(tf.mul(f(y), tf.cos(f(y)))))(x);
const images = () => floats(2, 5, 7, 3) as tf.Tensor4D;
const resize = (name: 'resizeBilinear' | 'resizeNearestNeighbor', size: [number, number], ...flags: boolean[]) => {
  return (x: tf.Tensor) => tf.image[name](x as tf.Tensor4D, size, ...flags);
};

/** What tfjs's own specs only touch, or leave out. Each is compared with tfjs's JavaScript kernels. */
const CASES: Record<string, () => tf.Tensor | tf.Tensor[]> = {
  'cumsum, reverse and exclusive': () => tf.cumsum(floats(3, 5, 4), 1, true, true),
  'cumprod of integers': () => tf.cumprod(ints(3, 4), 0),
  'cumsum of truth values': () => tf.cumsum(tf.greater(floats(9), 0), 0),
  'topk with ties': () => Object.values(tf.topk(tf.tensor2d([[1, 3, 3, 0, 3]]), 4)),
  'topk of integers': () => tf.topk(tf.tensor1d([7, -3, 12, 5], 'int32'), 2).indices,
  'search from both sides': () => {
    const rows = tf.tensor2d([
      [1, 2, 2, 5],
      [-1, 0, 4, 4],
    ]);
    const sought = tf.tensor2d([
      [2, 0, 9],
      [4, 4.5, -3],
    ]);
    return [tf.searchSorted(rows, sought, 'left'), tf.searchSorted(rows, sought, 'right')];
  },
  // A NaN in the first place wins on tfjs's JavaScript backend only.
  'argmax past NaN and infinities': () =>
    tf.argMax(
      tf.tensor2d([
        [-Infinity, NaN, -3],
        [1, NaN, Infinity],
      ]),
      1,
    ),
  'sign, atan2, prelu': () => [
    tf.sign(tf.tensor1d([-2, 0, 3])),
    tf.atan2(floats(3, 4), floats(4)),
    tf.prelu(floats(2, 3, 4), floats(4)),
  ],
  'prelu gradients': () => gradient((x) => tf.prelu(x, floats(5) as tf.Tensor), floats(4, 5)),
  'elu gradient': () => gradient((x) => tf.elu(x), floats(4, 5)),
  'relu6 of integers': () => tf.relu6(tf.tensor1d([-1, 4, 9], 'int32')),
  'bitwise and': () => tf.bitwiseAnd(tf.tensor1d([6, 5], 'int32'), tf.tensor1d([3, 4], 'int32')),
  'bilinear, as TensorFlow 1 samples': () => resize('resizeBilinear', [8, 3])(images()),
  'bilinear, aligned corners': () => resize('resizeBilinear', [8, 1], true)(images()),
  'bilinear, half pixel centres': () => resize('resizeBilinear', [11, 4], false, true)(images()),
  'bilinear gradient': () => gradient(resize('resizeBilinear', [8, 5]), floats(2, 6, 6, 2)),
  'bilinear gradient, aligned corners': () => gradient(resize('resizeBilinear', [4, 9], true), floats(2, 6, 6, 2)),
  'nearest, half pixel centres': () => resize('resizeNearestNeighbor', [9, 4], false, true)(images()),
  // tfjs's own gradient reads the first image's dy for every image of a batch.
  'nearest gradient': () => gradient(resize('resizeNearestNeighbor', [9, 4]), floats(1, 5, 7, 3)),
  'nearest gradient, aligned corners': () =>
    gradient(resize('resizeNearestNeighbor', [9, 4], true), floats(1, 5, 7, 3)),
  'nearest of integers': () => resize('resizeNearestNeighbor', [3, 3])(ints(1, 5, 5, 2)),
  'local response norm': () => tf.localResponseNormalization(images(), 2, 1.5, 0.7, 0.6),
  'local response norm gradient': () =>
    gradient((x) => tf.localResponseNormalization(x as tf.Tensor4D, 1, 1.5, 0.7, 0.6), images()),
  'space to batch and back': () => {
    const batches = tf.spaceToBatchND(
      floats(2, 4, 6, 3),
      [2, 3],
      [
        [1, 1],
        [0, 3],
      ],
    );
    return [
      batches,
      tf.batchToSpaceND(
        batches,
        [2, 3],
        [
          [1, 1],
          [0, 3],
        ],
      ),
    ];
  },
  'depth to space': () => tf.depthToSpace(floats(2, 2, 3, 8) as tf.Tensor4D, 2),
  'mirror pad, both modes': () => [
    tf.mirrorPad(
      floats(3, 4),
      [
        [2, 1],
        [0, 3],
      ],
      'reflect',
    ),
    tf.mirrorPad(
      floats(3, 4),
      [
        [3, 1],
        [0, 4],
      ],
      'symmetric',
    ),
  ],
  'strided slice, backwards and by steps': () => [
    tf.stridedSlice(floats(5, 7), [4, 1], [0, 7], [-2, 3]),
    tf.stridedSlice(ints(4, 5, 6), [0, 4, 5], [2, 0, 0], [1, -1, -2]),
  ],
  'diagonal of a matrix': () => tf.diag(floats(2, 3)),
  'gather with batch dimensions': () =>
    tf.gather(
      floats(2, 3, 5, 4),
      tf.tensor2d(
        [
          [4, 0],
          [1, 1],
        ],
        [2, 2],
        'int32',
      ),
      2,
      1,
    ),
  'gather by a truth value': () => tf.gather(floats(2, 3), tf.tensor1d([1, 0], 'int32')),
  'gather places': () =>
    tf.gatherND(
      floats(3, 4, 2),
      tf.tensor2d(
        [
          [2, 1],
          [0, 3],
        ],
        [2, 2],
        'int32',
      ),
    ),
  'scatter with duplicates': () => tf.scatterND(tf.tensor2d([[1], [3], [1]], [3, 1], 'int32'), floats(3, 4), [5, 4]),
  'scatter of integers': () => tf.scatterND(tf.tensor2d([[1], [1]], [2, 1], 'int32'), ints(2), [3]),
  'update places': () =>
    tf.tensorScatterUpdate(
      floats(3, 4),
      tf.tensor2d(
        [
          [2, 1],
          [0, 0],
        ],
        [2, 2],
        'int32',
      ),
      floats(2),
    ),
  'dense from sparse': () =>
    tf.sparseToDense(
      tf.tensor2d(
        [
          [0, 2],
          [1, 1],
        ],
        [2, 2],
        'int32',
      ),
      tf.tensor1d([5, 6]),
      [2, 3],
      -1,
    ),
  'bin counts': () => [
    tf.bincount(tf.tensor1d([1, 7, 1, 3], 'int32'), tf.tensor1d([]), 5),
    tf.denseBincount(
      tf.tensor2d(
        [
          [1, 1],
          [4, 9],
        ],
        [2, 2],
        'int32',
      ),
      floats(2, 2) as tf.Tensor2D,
      5,
    ),
    tf.denseBincount(
      tf.tensor2d(
        [
          [1, 1],
          [4, 9],
        ],
        [2, 2],
        'int32',
      ),
      tf.tensor2d([], [0, 0]),
      5,
      true,
    ),
  ],
  'segment sum with ids out of range': () =>
    tf.unsortedSegmentSum(floats(5, 2), tf.tensor1d([0, -1, 2, 7, 0], 'int32'), 3),
  einsum: () => [
    tf.einsum('bij,bkj->bik', floats(2, 3, 4), floats(2, 5, 4)),
    tf.einsum('ij->ji', ints(2, 3)),
    tf.einsum('i,i->', floats(6), floats(6)),
  ],
  'complex arithmetic': () => {
    const z = tf.complex(floats(3, 4), floats(4, 3).reshape([3, 4]));
    const product = tf.mul(z, tf.add(z, z));
    return [tf.real(product), tf.imag(tf.transpose(product)), tf.abs(z), tf.imag(tf.sub(z, product))];
  },
  ranges: () => [tf.range(0, 1, 0.3), tf.range(5, 0), tf.range(-3, 9, 4, 'int32'), tf.linspace(2, 5, 7)],
  'fourier transforms': () => {
    const spectrum = tf.fft(tf.complex(floats(2, 8), floats(2, 8)));
    return [tf.real(spectrum), tf.imag(spectrum), tf.real(tf.ifft(spectrum)), tf.irfft(tf.rfft(floats(2, 8)))];
  },
};

async function results(engine: 'cpu' | 'torch', run: () => tf.Tensor | tf.Tensor[]) {
  await loadEngine({ engine, threads: 1 });
  const before = tf.memory().numTensors;
  const found = tf.tidy(() =>
    [run()].flat().map((x) => ({ shape: [...x.shape], dtype: x.dtype, values: Array.from(x.dataSync()) })),
  );
  expect(tf.memory().numTensors).toBe(before);
  return found;
}

const native = (before: readonly FallbackUse[]) =>
  fallbackUses().filter(({ kernel, calls }) => calls !== before.find((use) => use.kernel === kernel)?.calls);

describe.skipIf(!hasTorch)('native kernels agree with tfjs’s own', () => {
  it.each(Object.keys(CASES))('%s', async (name) => {
    const wanted = await results('cpu', CASES[name]!);
    const before = fallbackUses();
    const found = await results('torch', CASES[name]!);
    expect(native(before)).toEqual([]);
    expect(found.length).toBe(wanted.length);
    found.forEach((one, i) => {
      expect({ ...one, values: one.values.length }).toEqual({ ...wanted[i]!, values: wanted[i]!.values.length });
      for (const [at, value] of one.values.entries()) {
        expect(value, `result ${i}, element ${at}`).toBeCloseTo(wanted[i]!.values[at]!, 4);
      }
    });
  });
});

it.skipIf(!hasTorch)(
  'complex tensors are sliced, joined and cast to their real part, which tfjs’s JavaScript kernels refuse',
  async () => {
    await loadEngine({ engine: 'torch', threads: 1 });
    const before = tf.memory().numTensors;
    tf.tidy(() => {
      const z = tf.complex([1, 2, 3], [4, 5, 6]);
      const turned = tf.concat([tf.slice(z, 1, 2), tf.slice(z, 0, 1)], 0);
      expect(turned.dtype).toBe('complex64');
      expect(Array.from(turned.dataSync())).toEqual([2, 5, 3, 6, 1, 4]);
      expect(Array.from(tf.cast(turned, 'float32').dataSync())).toEqual([2, 3, 1]);
      expect(Array.from(tf.imag(tf.cast(tf.tensor1d([7]), 'complex64')).dataSync())).toEqual([0]);
    });
    expect(tf.memory().numTensors).toBe(before);
  },
);

describe.skipIf(!hasTorch)('indices out of range', () => {
  beforeAll(async () => {
    await loadEngine({ engine: 'torch', threads: 1 });
  });
  afterAll(() => tf.env().set('TORCH_CHECK_INDICES', false));

  it.each([false, true])('are refused by name, checked beforehand: %s', (checked) => {
    tf.env().set('TORCH_CHECK_INDICES', checked);
    const at = (...ids: number[]) => tf.tensor1d(ids, 'int32');
    expect(() => tf.tidy(() => tf.gather(floats(3, 2), at(0, 3)))).toThrow(/the index value 3 is not in \[0, 2\]/);
    expect(() => tf.tidy(() => tf.gather(floats(3, 2), at(-1)))).toThrow(/the index value -1 is not in/);
    expect(() => tf.tidy(() => tf.scatterND(at(4).reshape([1, 1]), floats(1), [4]))).toThrow(
      /Invalid indices: place 4/,
    );
    expect(() => tf.tidy(() => tf.bincount(at(-2), tf.tensor1d([]), 3))).toThrow(/non-negative/);
  });

  it('cost a look at the indices only when asked for', async () => {
    const { torchBackend } = await import('../../engine/backend/torch-backend.ts');
    const { addon } = torchBackend();
    let readBacks = 0;
    const { toTyped } = addon;
    addon.toTyped = (handle) => {
      readBacks++;
      return toTyped(handle);
    };
    const gatherOnce = () => tf.tidy(() => void tf.gather(floats(3, 2), tf.tensor1d([2], 'int32')));
    tf.env().set('TORCH_CHECK_INDICES', false);
    gatherOnce();
    expect(readBacks).toBe(0);
    tf.env().set('TORCH_CHECK_INDICES', true);
    gatherOnce();
    expect(readBacks).toBe(1);
    addon.toTyped = toTyped;
  });
});

it.skipIf(!hasTorch)('plain tfjs ops take bf16 activations', async () => {
  await loadEngine({ engine: 'torch', threads: 1 });
  const run = (x: tf.Tensor) => [
    tf.cumsum(x, 1),
    tf.topk(x, 2).values,
    tf.prelu(x, tf.tensor1d([0.5, 0.25, 0.125, 1])),
    tf.image.resizeBilinear(x.reshape([1, 2, 4, 1]) as tf.Tensor4D, [4, 4]),
    tf.localResponseNormalization(x.reshape([1, 1, 2, 4]) as tf.Tensor4D),
    tf.gatherND(x, tf.tensor2d([[1, 2]], [1, 2], 'int32')),
    tf.mirrorPad(
      x,
      [
        [1, 1],
        [1, 1],
      ],
      'reflect',
    ),
    tf.einsum('ij,kj->ik', x, tf.ones([3, 4])),
  ];
  tf.tidy(() => {
    const x = floats(2, 4);
    const wanted = run(x).map((y) => y.dataSync());
    run(toCompute(x, 'bf16')).forEach((y, i) => {
      for (const [at, value] of y.dataSync().entries()) expect(Math.abs(value - wanted[i]![at]!)).toBeLessThan(0.05);
    });
  });
});
