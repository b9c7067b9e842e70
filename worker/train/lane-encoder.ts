import { pixelsToTensor, type Recording, recordForward, rootScope, type Tensor, tf } from '../../engine/index.ts';
import type { EncoderInput, LaneStatistics, Objective } from '../objectives/objective.ts';
import type { RowRange } from '../objectives/tiles.ts';
import { chunksOf, inputOfChunk, mergeChunks, rowsOfChunk } from './lane-chunks.ts';

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

/** Told of each parameter's gradient once for every chunk of a lane, in the order of the chunks; see `GradientListener`. */
export type LaneGradientListener = (index: number, gradient: Tensor, isLastChunk: boolean) => void;

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
    onGradient: LaneGradientListener,
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
  /** Whether the samples are held out: nothing of the model is then dropped. Default false. */
  readonly heldOut?: boolean;
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

  /** Encodes a whole lane and keeps its tape. */
  encode(input: LaneInput): EncodedLane {
    this.#statistics?.begin();
    const recording = this.#record(input, this.#whole);
    return {
      outputs: recording.outputs,
      statistics: this.#readStatistics(),
      backward: (dOutputs, parameters, onGradient) =>
        recording.backward(dOutputs, parameters, (index, gradient) => onGradient(index, gradient, true)),
      dispose: () => recording.dispose(),
    };
  }

  /**
   * GradCache (Gao et al. 2021, §3.2): encodes a lane for its outputs alone, and once more with a tape when its gradients are asked for, in
   * chunks of `microBatch` samples both times. What is random in a model is drawn from the samples' seeds, so the second pass is the
   * first one again: with one chunk the gradients have the bits that `encode` gives.
   */
  encodeTwice(input: LaneInput, microBatch: number): EncodedLane {
    const chunks = chunksOf(this.#options.laneBatch, microBatch);
    this.#statistics?.begin();
    const outputs = this.#outputsOf(input, chunks);
    return {
      outputs,
      statistics: this.#readStatistics(),
      backward: (dOutputs, parameters, onGradient) => {
        try {
          for (const [position, chunk] of chunks.entries()) {
            const isLast = position === chunks.length - 1;
            const recording = this.#record(input, chunk);
            // The values are those of the first pass.
            this.#sweepChunk(recording, dOutputs, chunk, parameters, (index, gradient) =>
              onGradient(index, gradient, isLast),
            );
          }
        } finally {
          tf.dispose(outputs);
        }
      },
      dispose: () => tf.dispose(outputs),
    };
  }

  get #whole(): RowRange {
    return { begin: 0, count: this.#options.laneBatch };
  }

  /** Forward without a tape, chunk by chunk. */
  #outputsOf(input: LaneInput, chunks: readonly RowRange[]): Tensor[] {
    return tf.tidy(() => {
      const parts = chunks.map((chunk) =>
        this.#withInput(input, chunk, (one) => tf.tidy(() => this.#objective.encode(one))),
      );
      const [first] = parts;
      if (chunks.length === 1) return first!;
      return this.#objective.outputs.map(({ perSample }, kind) =>
        mergeChunks(
          parts.map((part) => part[kind]!),
          perSample,
        ),
      );
    });
  }

  #sweepChunk(
    recording: Recording,
    dOutputs: readonly (Tensor | null)[],
    chunk: RowRange,
    parameters: readonly tf.Variable[],
    onGradient: (index: number, gradient: Tensor) => void,
  ): void {
    if (chunk.count === this.#options.laneBatch) {
      recording.backward(dOutputs, parameters, onGradient);
      return;
    }
    const own = dOutputs.map(
      (rows, kind) => rows && rowsOfChunk(rows, chunk, this.#objective.outputs[kind]!.perSample),
    );
    try {
      recording.backward(own, parameters, onGradient);
    } finally {
      tf.dispose(own.filter((rows) => rows !== null));
    }
  }

  #record(input: LaneInput, chunk: RowRange): Recording {
    return this.#withInput(input, chunk, (one) => recordForward(() => this.#objective.encode(one)));
  }

  /** Makes a chunk's inputs for as long as `use` runs. */
  #withInput<T extends Recording | Tensor[]>(input: LaneInput, chunk: RowRange, use: (one: EncoderInput) => T): T {
    const { laneBatch, imageSide, mean, std, precision } = this.#options;
    const { views } = this.#objective.inputs;
    const own = inputOfChunk(input, laneBatch, chunk, views);
    const { tokens } = own;
    const seeds = seedsOf(own, chunk.count);
    const dropSeeds = this.#options.heldOut ? undefined : seeds;
    const shape: [number, number, number, number] = [views * chunk.count, imageSide, imageSide, 3];
    const pixels_BHWC = rootScope('host copies', () => pixelsToTensor(own.pixels, shape, { mean, std, precision }));
    try {
      return use({ samples: chunk.count, pixels_BHWC, tokens, labels: labelsOf(own), seeds, dropSeeds });
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

export function seedsOf({ seeds }: LaneInput, laneBatch: number): Uint32Array {
  return seeds ?? new Uint32Array(laneBatch);
}

const NO_LABELS = new Int32Array(0);

export function labelsOf({ labels = NO_LABELS }: LaneInput): Int32Array {
  return labels;
}
