import { pixelsToTensor, type Recording, recordForward, rootScope, type Tensor, tf } from '../../engine/index.ts';
import type { ParameterLookup } from '../../models/clip/transformer.ts';
import type { NamedVariable } from '../../models/named-variables.ts';
import type { EncoderInput, LaneStatistics, Objective, TrainedModel } from '../objectives/objective.ts';
import type { BlockingCollectives } from './blocking-collectives.ts';
import { type LaneEncoderOptions, type LaneInput, labelsOf } from './lane-encoder.ts';
import { sharedFloats } from './lane-gather.ts';

/** Lanes between their forward and their backward, which are one of each for all of them. */
export interface EncodedTogether {
  readonly outputs: readonly (readonly Tensor[])[];
  /** Of every lane the same: those of all lanes. */
  readonly statistics: Float32Array;
  /** Reports each parameter's gradient of every lane, for one parameter in lane order. Everything held is gone afterwards, also where it throws. */
  backward(
    dOutputs: readonly (readonly (Tensor | null)[])[],
    parameters: readonly number[],
    onGradient: (lane: number, parameter: number, gradient: Tensor) => void,
  ): void;
  dispose(): void;
}

export interface TogetherOptions extends LaneEncoderOptions {
  readonly laneCount: number;
}

/** Takes all held lanes through a model at once: for batch norms over all lanes of all workers (`model.vision.batchNorm: sync`). */
export class TogetherEncoder {
  readonly #options: TogetherOptions;
  readonly #model: TrainedModel;
  readonly #objective: Objective;
  readonly #statistics: LaneStatistics;
  #buffer = sharedFloats(0);

  constructor(
    options: TogetherOptions,
    modules: { readonly model: TrainedModel; readonly objective: Objective; readonly statistics: LaneStatistics },
  ) {
    this.#options = options;
    this.#model = modules.model;
    this.#objective = modules.objective;
    this.#statistics = modules.statistics;
  }

  /** @param opFirst number of the first exchange; every batch norm takes one in forward and one in backward */
  encode(lanes: readonly LaneInput[], opFirst: number, collectives: BlockingCollectives): EncodedTogether {
    const { parameters, buffers = [] } = this.#model;
    // A lane's own leaves share the values: its gradients are apart, for the lane tree.
    const leaves = lanes.map(() => parameters.map(({ variable }) => tf.clone(variable)));
    const lookups = leaves.map((own) => lookupOf(parameters, own, buffers));
    const inputs = lanes.map((lane) => this.#input(lane));
    let op = opFirst;
    const exchange = (own: readonly Float32Array[]) => this.#gather(op++, lanes, own, collectives);
    this.#statistics.begin();
    let recording: Recording;
    try {
      const encode = () => this.#objective.encodeTogether!(inputs, { lookups, exchange }).flat();
      recording = recordForward(encode, leaves.flat());
    } catch (thrown) {
      tf.dispose(leaves.flat());
      throw thrown;
    } finally {
      tf.dispose(inputs.map(({ pixels_BHWC }) => pixels_BHWC));
    }
    const statistics = new Float32Array(this.#statistics.length);
    this.#statistics.read(statistics);
    const dispose = () => {
      recording.dispose();
      tf.dispose(leaves.flat());
    };
    const perLane = this.#objective.outputs.length;
    return {
      outputs: lanes.map((_, lane) => recording.outputs.slice(lane * perLane, (lane + 1) * perLane)),
      statistics,
      backward: (dOutputs, wanted, onGradient) => {
        const ordered = new LaneOrder(lanes.length, onGradient);
        const sources = leaves.flatMap((own) => wanted.map((index) => own[index]!));
        try {
          recording.backward(dOutputs.flat(), sources, (at, gradient) =>
            ordered.take(Math.floor(at / wanted.length), wanted[at % wanted.length]!, gradient),
          );
          ordered.finish();
        } finally {
          ordered.dispose();
          dispose();
        }
      },
      dispose,
    };
  }

  #input(lane: LaneInput): EncoderInput {
    const { laneBatch, imageSide, mean, std, precision } = this.#options;
    const { pixels, tokens, seeds = new Uint32Array(laneBatch) } = lane;
    const rows = this.#objective.inputs.views * laneBatch;
    const pixels_BHWC = rootScope('host copies', () =>
      pixelsToTensor(pixels, [rows, imageSide, imageSide, 3], { mean, std, precision }),
    );
    return { samples: laneBatch, pixels_BHWC, tokens, labels: labelsOf(lane), seeds };
  }

  #gather(
    op: number,
    lanes: readonly LaneInput[],
    own: readonly Float32Array[],
    collectives: BlockingCollectives,
  ): Float32Array[] {
    const floats = own[0]!.length;
    const { laneCount } = this.#options;
    if (this.#buffer.length !== laneCount * floats) this.#buffer = sharedFloats(laneCount * floats);
    const block = (lane: number) => this.#buffer.subarray(lane * floats, (lane + 1) * floats);
    for (const [position, { lane }] of lanes.entries()) block(lane).set(own[position]!);
    rootScope('collectives', () => collectives.allGather(op, 4 * floats, new Uint8Array(this.#buffer.buffer)));
    return Array.from({ length: laneCount }, (_, lane) => block(lane).slice());
  }
}

function lookupOf(
  parameters: readonly NamedVariable[],
  leaves: readonly Tensor[],
  buffers: readonly NamedVariable[],
): ParameterLookup {
  const byName = new Map<string, Tensor>(buffers.map(({ name, variable }) => [name, variable]));
  for (const [index, { name }] of parameters.entries()) byName.set(name, leaves[index]!);
  return <T extends Tensor>(name: string) => byName.get(name) as T;
}

/** Hands gradients on in lane order for every parameter: a sweep ends with the first lane. */
class LaneOrder {
  readonly #lanes: number;
  readonly #onGradient: (lane: number, parameter: number, gradient: Tensor) => void;
  readonly #waiting = new Map<number, (Tensor | undefined)[]>();

  constructor(lanes: number, onGradient: (lane: number, parameter: number, gradient: Tensor) => void) {
    this.#lanes = lanes;
    this.#onGradient = onGradient;
  }

  take(lane: number, parameter: number, gradient: Tensor): void {
    const waiting = this.#waiting.get(parameter) ?? Array.from({ length: this.#lanes }, () => undefined);
    waiting[lane] = tf.keep(tf.clone(gradient));
    this.#waiting.set(parameter, waiting);
    if (waiting.every((one) => one !== undefined)) this.#flush(parameter, waiting);
  }

  /** What some lanes' losses do not reach. */
  finish(): void {
    for (const [parameter, waiting] of this.#waiting) this.#flush(parameter, waiting);
  }

  dispose(): void {
    for (const waiting of this.#waiting.values()) tf.dispose(waiting.filter((one) => one !== undefined));
  }

  #flush(parameter: number, waiting: readonly (Tensor | undefined)[]): void {
    this.#waiting.delete(parameter);
    for (const [lane, gradient] of waiting.entries()) {
      if (gradient === undefined) continue;
      this.#onGradient(lane, parameter, gradient);
      gradient.dispose();
    }
  }
}
