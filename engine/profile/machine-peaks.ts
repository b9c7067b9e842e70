import type { Engine } from '../engine.ts';
import { type Precision, toCompute } from '../ops/precision.ts';
import { dispose, keep, matMul, neg, randomUniform, reshape, slice, type Tensor, type Tensor2D, tidy } from '../tf.ts';
import type { MachinePeaks } from './kernel-table.ts';

/** Side of the square product; JavaScript kernels get one that takes tens of milliseconds as well. */
const GEMM_SIDE = { native: 1024, javascript: 160 };
/** Elements of the array that is passed over: 64 MiB of floats, more than a cache holds. */
const PASS_ELEMENTS = { native: 2 ** 24, javascript: 2 ** 20 };
const REPETITIONS_MIN = 5;

/**
 * Measures what this engine reaches on a product of two 1024×1024 matrices and on negating an array: the best of what fits into the time.
 * To be called close to the run
 * it is compared with, better before and after.
 */
export function measurePeaks(engine: Engine, precision: Precision, seconds = 0.4): MachinePeaks {
  const kind = engine.name === 'cpu' ? 'javascript' : 'native';
  const side = GEMM_SIDE[kind];
  const [a, b] = [0, 1].map(() => tidy(() => keep(toCompute(randomUniform([side, side], -1, 1), precision)))) as [
    Tensor2D,
    Tensor2D,
  ];
  const line = tidy(() => keep(randomUniform([PASS_ELEMENTS[kind]], -1, 1)));
  try {
    // Which layout is fast differs by library and type.
    const gemmSeconds = Math.min(
      fastest(engine, () => matMul(a, b), seconds / 2),
      fastest(engine, () => matMul(a, b, false, true), seconds / 2),
    );
    const passSeconds = fastest(engine, () => neg(line), seconds / 2);
    return { gemmFlops: (2 * side ** 3) / gemmSeconds, memoryBytes: (8 * line.size) / passSeconds };
  } finally {
    dispose([a, b, line]);
  }
}

/** The better of two measurements, each by itself. */
export function betterPeaks(a: MachinePeaks, b: MachinePeaks): MachinePeaks {
  return { gemmFlops: Math.max(a.gemmFlops, b.gemmFlops), memoryBytes: Math.max(a.memoryBytes, b.memoryBytes) };
}

function fastest(engine: Engine, run: () => Tensor, seconds: number): number {
  const first = new Float32Array(1);
  const once = (): number => {
    const began = performance.now();
    const result = run();
    // An engine may answer before it has computed: one element is read, which it must wait for.
    tidy(() => engine.readInto(slice(reshape(result, [result.size]), 0, 1), first));
    const ended = performance.now();
    result.dispose();
    return (ended - began) / 1000;
  };
  let best = once();
  const began = performance.now();
  for (let i = 0; i < REPETITIONS_MIN || performance.now() - began < 1000 * seconds; i++) best = Math.min(best, once());
  return best;
}
