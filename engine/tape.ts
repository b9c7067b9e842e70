import { CoveyError } from '../common/errors.ts';
import { freeTape, type RecordedTape, recordTape } from './recorded-tape.ts';
import { type GradientListener, Sweep } from './sweep.ts';
import { dispose, type Tensor } from './tf.ts';
import { internals, type OutputGradients, type TapeNode } from './tfjs-internals.ts';

export type { GradientListener } from './sweep.ts';

/** A forward pass that can be swept backwards once. Several may be alive at a time. */
export interface Recording {
  /** What the recorded function returned. Alive until `backward` or `dispose`. */
  readonly outputs: readonly Tensor[];
  /**
   * Sweeps the tape from the end, freeing saved tensors and consumed gradients as it goes; everything the recording holds is gone
   * afterwards, also where it throws. `outputGradients[i]` belongs to `outputs[i]` and stays the caller's; null means zero.
   * Parameters that the outputs do not depend on are not reported.
   */
  backward(outputGradients: OutputGradients, parameters: readonly Tensor[], onGradient: GradientListener): void;
  /** Gives everything up without a backward. Harmless when already done. */
  dispose(): void;
}

/**
 * Runs `f` while recording and hands back its outputs and the means of a backward pass. Unlike tfjs's own gradients the recording outlives the
 * call, so that many forwards can precede the first backward, and memory falls during the sweep instead of after it.
 * Temporaries that no backward needs are freed before this returns.
 *
 * @param sources tensors besides trainable variables that `backward` may be asked for
 */
export function recordForward(f: () => Tensor[], sources: readonly Tensor[] = []): Recording {
  if (internals().state.gradientDepth > 0) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      'Cannot record a forward pass: another recording is in progress; finish it first',
    );
  }
  return new TapeRecording(recordTape(f, sources));
}

class TapeRecording implements Recording {
  readonly outputs: readonly Tensor[];
  /** Private, so that `tidy` does not look for tensors in here. */
  #tape: readonly TapeNode[] | undefined;

  constructor({ outputs, tape }: RecordedTape) {
    this.outputs = outputs;
    this.#tape = tape;
  }

  backward(outputGradients: OutputGradients, parameters: readonly Tensor[], onGradient: GradientListener): void {
    const tape = this.#tape;
    if (tape === undefined) {
      throw new CoveyError('INVALID_ARGUMENT', 'Cannot run backward: this recording was already swept or disposed');
    }
    if (outputGradients.length !== this.outputs.length) {
      throw new CoveyError('INVALID_ARGUMENT', 'Cannot run backward: one gradient (or null) per output is needed', {
        fields: { outputs: this.outputs.length, gradients: outputGradients.length },
      });
    }
    const sweep = new Sweep(tape, parameters, onGradient);
    try {
      this.outputs.forEach((output, index) => {
        const gradient = outputGradients[index];
        if (gradient) sweep.seed(output, gradient);
      });
      sweep.run();
    } finally {
      sweep.dispose();
      this.dispose();
    }
  }

  dispose(): void {
    if (this.#tape === undefined) return;
    freeTape(this.#tape);
    this.#tape = undefined;
    dispose(this.outputs as Tensor[]);
  }
}
