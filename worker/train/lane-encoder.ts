import {
  type GradientListener,
  pixelsToTensor,
  recordForward,
  rootScope,
  type Tensor,
  type tf,
} from '../../engine/index.ts';
import type { LaneStatistics, Objective } from '../objectives/objective.ts';

/** One lane's inputs: what the objective takes of `laneBatch` samples, b. */
export interface LaneInput {
  readonly lane: number;
  /** uint8 RGB, [views, b, side, side, 3]. */
  readonly pixels: Uint8Array;
  /** Token ids, [b, contextLength]; empty without captions. */
  readonly tokens: Int32Array;
  /** Classes, [b]; empty or absent without labels. */
  readonly labels?: Int32Array;
  /** One for each sample, [b]: see `EncoderInput.seeds`. Absent: zeros. */
  readonly seeds?: Uint32Array;
}

/** A lane between its forward and its backward. */
export interface EncodedLane {
  /** What the objective's `encode` made of it. Alive until `backward` or `dispose`. */
  readonly outputs: readonly Tensor[];
  /** What the model's `LaneStatistics` read of it. */
  readonly statistics: Float32Array;
  /** Sweeps the lane; `dOutputs` stay the caller's. Everything the lane holds is gone afterwards, also where it throws. */
  backward(
    dOutputs: readonly (Tensor | null)[],
    parameters: readonly tf.Variable[],
    onGradient: GradientListener,
  ): void;
  /** Gives the lane up. Harmless when already done. */
  dispose(): void;
}

export interface LaneEncoderOptions {
  /** Samples of a lane. */
  readonly laneBatch: number;
  readonly imageSide: number;
  readonly mean: readonly [number, number, number];
  readonly std: readonly [number, number, number];
  readonly precision: 'fp32' | 'bf16';
}

/** Takes lanes through the model: from what the loader gives to the objective's outputs, and back. */
export class LaneEncoder {
  readonly #options: LaneEncoderOptions;
  readonly #objective: Objective;
  readonly #statistics: LaneStatistics | undefined;

  constructor(
    options: LaneEncoderOptions,
    modules: { readonly objective: Objective; readonly statistics: LaneStatistics | undefined },
  ) {
    this.#options = options;
    this.#objective = modules.objective;
    this.#statistics = modules.statistics;
  }

  encode(input: LaneInput): EncodedLane {
    const { laneBatch: samples, imageSide, mean, std, precision } = this.#options;
    const shape: [number, number, number, number] = [this.#objective.inputs.views * samples, imageSide, imageSide, 3];
    const pixels_BHWC = rootScope('host copies', () => pixelsToTensor(input.pixels, shape, { mean, std, precision }));
    const { tokens, seeds = new Uint32Array(samples) } = input;
    try {
      const recording = recordForward(() =>
        this.#objective.encode({ samples, pixels_BHWC, tokens, labels: labelsOf(input), seeds }),
      );
      return {
        outputs: recording.outputs,
        statistics: this.#readStatistics(),
        backward: (dOutputs, parameters, onGradient) => recording.backward(dOutputs, parameters, onGradient),
        dispose: () => recording.dispose(),
      };
    } finally {
      pixels_BHWC.dispose();
    }
  }

  #readStatistics(): Float32Array {
    const statistics = new Float32Array(this.#statistics?.length ?? 0);
    this.#statistics?.read(statistics);
    return statistics;
  }
}

const NO_LABELS = new Int32Array(0);

export function labelsOf({ labels = NO_LABELS }: LaneInput): Int32Array {
  return labels;
}
