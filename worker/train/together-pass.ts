import { rootScope, type Tensor, tf } from '../../engine/index.ts';
import type { BlockingCollectives } from './blocking-collectives.ts';
import type { GlobalLoss } from './global-loss.ts';
import type { GradientSink } from './gradient-sink.ts';
import type { LaneInput } from './lane-encoder.ts';
import type { LearntScalars } from './learnt-scalars.ts';
import type { PhaseTimer } from './phase-timer.ts';
import type { TogetherEncoder } from './together-encoder.ts';

export interface TogetherPassModules {
  readonly encoder: TogetherEncoder;
  readonly loss: GlobalLoss;
  readonly scalars: LearntScalars;
  /** Parameters that have gradients. */
  readonly trainable: readonly number[];
}

export interface TogetherStep {
  /** Number of the step's first collective operation, and of the first that is a batch norm's. */
  readonly opBase: number;
  readonly opFirstNorm: number;
  readonly lanes: readonly LaneInput[];
  readonly collectives: BlockingCollectives;
  readonly timer: PhaseTimer;
  /** Takes the gradients of the held lane at a position. */
  readonly sinkOf: (position: number) => GradientSink;
}

/** Forward and backward of all held lanes side by side: their batch norms exchange with the lanes of others layer by layer. */
export class TogetherPass {
  readonly #modules: TogetherPassModules;

  constructor(modules: TogetherPassModules) {
    this.#modules = modules;
  }

  /** Until every gradient is in its sink; the reductions that are then under way are the caller's to wait for. */
  run({ opBase, opFirstNorm, lanes, collectives, timer, sinkOf }: TogetherStep): void {
    const { encoder, loss, scalars, trainable } = this.#modules;
    const encoded = encoder.encode(lanes, opFirstNorm, collectives);
    const held = encoded.outputs.map((outputs) => ({ outputs }));
    const made: { dispose(): void }[] = [];
    try {
      for (const [position, input] of lanes.entries()) loss.share(input, held[position]!);
      timer.mark('forward');
      loss.gather(opBase, collectives);
      const open = loss.open(opBase, lanes, held, collectives);
      made.push(open);
      timer.mark('gather');
      const dOutputs: (readonly (Tensor | null)[])[] = [];
      const sinks = lanes.map((input, position) => {
        const result = open.gradients(input, held[position]!);
        made.push({ dispose: () => tf.dispose(result.dOutputs.filter((one) => one !== null)) });
        dOutputs.push(result.dOutputs);
        const sink = sinkOf(position);
        sink.scalars([result.lossSum, ...result.metricSums, ...encoded.statistics], scalars.gradients(result.dScalars));
        return sink;
      });
      encoded.backward(dOutputs, trainable, (lane, index, gradient) => sinks[lane]!.gradient(index, gradient, true));
      rootScope('gradient sums', () => {
        for (const sink of sinks) sink.finish();
      });
      timer.mark('backward');
    } finally {
      for (const one of made) one.dispose();
      encoded.dispose();
    }
  }
}
