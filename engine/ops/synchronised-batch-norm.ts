import { onTorch } from '../backend/active.ts';
import { torchBackend } from '../backend/torch-backend.ts';
import { runFusedOp } from '../fused-op.ts';
import {
  clone,
  concat,
  keep,
  mul,
  ones,
  stack,
  step,
  sub,
  sum,
  type Tensor,
  type Tensor1D,
  tensor1d,
  type Variable,
  variable,
  zeros,
  zerosLike,
} from '../tf.ts';
import { batchNorm } from './batch-norm.ts';
import { type Precision, toCompute, toFloat32 } from './precision.ts';

/** Brings together what lanes have: the blocks of the lanes that are computed here in, those of all lanes, in lane order, out. */
export type LaneExchange = (own: readonly Float32Array[]) => readonly Float32Array[];

export interface SynchronisedBatchNormOptions {
  /** One per tensor, each fp32 [C] and of equal values: a lane has leaves of its own, so that its gradients stay apart. */
  readonly weights: readonly Tensor1D[];
  readonly biases: readonly Tensor1D[];
  readonly residuals?: readonly Tensor[];
  readonly activation?: 'relu';
  /** Storage of the tensors. */
  readonly precision: Precision;
  readonly exchange: LaneExchange;
}

export interface SynchronisedBatchNorm<T extends Tensor> {
  readonly ys: T[];
  /** Of all lanes, per channel; the variance without bias, as running ones are. */
  readonly mean: Float32Array;
  readonly variance: Float32Array;
}

const EPS = 1e-5;

/**
 * Batch normalisation over all axes but the last *and over all lanes*, those of other workers included: what one process makes of the whole
 * batch. Two exchanges of 2C numbers per lane, one in forward and one in backward, whose sums are taken in lane order, so that the bits do not
 * depend on who holds which lanes. Forward: moments of lanes into moments of the whole (Chan, Golub & LeVeque 1979). Backward, with sums
 * over all lanes: dx = w/σ·(g − Σg/N − x̂·Σ(g·x̂)/N).
 *
 * @param xs the lanes computed here, all of one shape [..., C]
 */
export function synchronisedBatchNorm<T extends Tensor>(
  xs: readonly T[],
  options: SynchronisedBatchNormOptions,
): SynchronisedBatchNorm<T> {
  const { weights, biases, residuals, activation, precision, exchange } = options;
  const channels = xs[0]!.shape.at(-1)!;
  const rows = xs[0]!.size / channels;
  const axes = xs[0]!.shape.slice(0, -1).map((_, axis) => axis);
  const relu = activation === 'relu';
  let moments: Moments | undefined;
  const ys = runFusedOp<Tensor>({
    name: 'CoveySynchronisedBatchNorm',
    inputs: namedInputs({ x: xs, weight: weights, bias: biases, residual: residuals ?? [] }),
    forward: () => {
      moments = combined(exchange(xs.map((x) => laneMoments(x, rows, channels))), rows, channels);
      const state = { runningMean: tensor1d(moments.mean), runningVariance: tensor1d(moments.variance) };
      const outputs = xs.map((x, lane) =>
        batchNorm(
          x as Tensor,
          {
            weight: weights[lane]!,
            bias: biases[lane]!,
            ...(state as unknown as { runningMean: Variable; runningVariance: Variable }),
          },
          {
            training: false,
            eps: EPS,
            ...(activation ? { activation } : {}),
            ...(residuals ? { residual: residuals[lane]! } : {}),
          },
        ),
      );
      const kept = [...xs, ...(relu ? outputs : [])].map((one) => keep(clone(one as Tensor)));
      return { outputs, saved: kept };
    },
    backward: (dys, _wanted, saved) => {
      const { mean: m, variance } = moments!;
      const mean_C = tensor1d(m);
      const reciprocal_C = tensor1d(variance.map((value) => 1 / Math.sqrt(value + EPS)));
      const statistics = { mean_C, reciprocal_C };
      const lanes = xs.map((_, lane): LaneSweep => {
        const x = saved[lane]!;
        const dy = dys[lane] ?? zerosLike(x);
        const y = relu ? saved[xs.length + lane]! : undefined;
        const sweep = onTorch() ? fusedSweep : plainSweep;
        return sweep({ x, dy, y, weight: weights[lane]!, bias: biases[lane]!, ...statistics }, axes);
      });
      const own = lanes.map(({ dbias, dweight }) => concat([dbias, dweight]).dataSync<'float32'>());
      const all = exchange(own);
      const shares_2C = sumOf(all).map((value) => value / (rows * all.length));
      const [g_C, gx_C] = [tensor1d(shares_2C.subarray(0, channels)), tensor1d(shares_2C.subarray(channels))];
      const gradients: Record<string, Tensor> = {};
      lanes.forEach(({ g, scaled, dbias, dweight }, lane) => {
        const scale_C = mul(weights[lane]!, reciprocal_C);
        const slope_C = mul(mul(scale_C, reciprocal_C), gx_C);
        const centred = sub(toFloat32(saved[lane]!), mean_C);
        const dx = sub(sub(toFloat32(scaled), mul(scale_C, g_C)), mul(centred, slope_C));
        gradients[`x${lane}`] = toCompute(dx, precision);
        gradients[`weight${lane}`] = dweight;
        gradients[`bias${lane}`] = dbias;
        if (residuals) gradients[`residual${lane}`] = g;
      });
      return gradients;
    },
  });
  const { mean: m, variance } = moments!;
  const count = rows * moments!.lanes;
  const unbiased = variance.map((value) => (value * count) / Math.max(1, count - 1));
  return { ys: ys as T[], mean: m, variance: unbiased };
}

interface Moments {
  readonly mean: Float32Array;
  readonly variance: Float32Array;
  readonly lanes: number;
}

function namedInputs(lists: Readonly<Record<string, readonly Tensor[]>>): Record<string, Tensor> {
  return Object.fromEntries(
    Object.entries(lists).flatMap(([name, list]) => list.map((tensor, lane) => [`${name}${lane}`, tensor])),
  );
}

/** [mean | sum of squares around it], per channel: what the lane's own batch norm would meet. */
function laneMoments(x: Tensor, rows: number, channels: number): Float32Array {
  const [runningMean, runningVariance] = [0, 0].map(() => variable(zeros([channels]), false)) as [Variable, Variable];
  const [weight, bias] = [ones([channels]) as Tensor1D, zeros([channels]) as Tensor1D];
  try {
    batchNorm(x, { weight, bias, runningMean, runningVariance }, { training: true, momentum: 1 });
    const [mean, variance] = [runningMean, runningVariance].map((one) => one.dataSync<'float32'>());
    const out = new Float32Array(2 * channels);
    out.set(mean!);
    for (let c = 0; c < channels; c++) out[channels + c] = variance![c]! * Math.max(1, rows - 1);
    return out;
  } finally {
    runningMean.dispose();
    runningVariance.dispose();
  }
}

interface SweptLane {
  readonly x: Tensor;
  readonly dy: Tensor;
  /** The result, where ReLU follows. */
  readonly y: Tensor | undefined;
  readonly weight: Tensor1D;
  readonly bias: Tensor1D;
  readonly mean_C: Tensor1D;
  readonly reciprocal_C: Tensor1D;
}

/** As if the statistics were constants. */
interface LaneSweep {
  /** dy where ReLU let the value through. */
  readonly g: Tensor;
  /** g·w/σ */
  readonly scaled: Tensor;
  readonly dbias: Tensor1D;
  readonly dweight: Tensor1D;
}

function plainSweep({ x, dy, y, weight, mean_C, reciprocal_C }: SweptLane, axes: number[]): LaneSweep {
  const g = y === undefined ? dy : mul(dy, step(y));
  const normalised = mul(sub(x, mean_C), reciprocal_C);
  return {
    g,
    scaled: mul(g, mul(weight, reciprocal_C)),
    dbias: sum(g, axes) as Tensor1D,
    dweight: sum(mul(g, normalised), axes) as Tensor1D,
  };
}

function fusedSweep({ x, dy, y, weight, bias, mean_C, reciprocal_C }: SweptLane): LaneSweep {
  const backend = torchBackend();
  const handle = (tensor: Tensor) => backend.handleOf(tensor);
  const [dx, dweight, dbias, dresidual] = backend.addon.batchNormGradient(
    handle(dy),
    handle(x),
    y === undefined ? null : handle(y),
    handle(stack([mean_C, reciprocal_C])),
    handle(weight),
    handle(bias),
    false,
    y !== undefined,
  );
  return {
    g: dresidual === null ? dy : backend.tensor(dresidual, x.shape),
    scaled: backend.tensor(dx, x.shape),
    dbias: backend.tensor(dbias, bias.shape) as Tensor1D,
    dweight: backend.tensor(dweight, weight.shape) as Tensor1D,
  };
}

/** In lane order, in double precision. */
function combined(all: readonly Float32Array[], rows: number, channels: number): Moments {
  const centre = new Float64Array(channels);
  const squares = new Float64Array(channels);
  all.forEach((lane, seen) => {
    for (let c = 0; c < channels; c++) {
      const difference = lane[c]! - centre[c]!;
      centre[c]! += difference / (seen + 1);
      squares[c]! += lane[channels + c]! + (difference * difference * rows * seen) / (seen + 1);
    }
  });
  const count = rows * all.length;
  return { mean: Float32Array.from(centre), variance: Float32Array.from(squares, (s) => s / count), lanes: all.length };
}

function sumOf(all: readonly Float32Array[]): Float32Array {
  const total = new Float64Array(all[0]!.length);
  for (const lane of all) for (let i = 0; i < total.length; i++) total[i]! += lane[i]!;
  return Float32Array.from(total);
}
