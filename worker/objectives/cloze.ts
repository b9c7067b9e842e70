import type { ClozeConfig } from '../../common/config/loss-config.ts';
import type { TextConfig } from '../../common/config/run-config.ts';
import { type Engine, embedding, type Tensor, type Tensor2D, tf } from '../../engine/index.ts';
import { textBatch } from '../../models/clip/text-tower.ts';
import type { ClozeModel } from '../../models/text/cloze-model.ts';
import { maskText } from '../../models/text/masked-text.ts';
import type { EncoderInput, GlobalBatch, Lane, LaneGradients, Objective } from './objective.ts';
import { OBJECTIVE_INPUTS } from './objective-inputs.ts';
import { hostSum } from './tiles.ts';

/**
 * Masked language modelling (BERT, Devlin et al. 2019, §3.1), on captions alone:
 *
 *   L = −1/M Σ_{m = 1}^{M} log p(t_m | the caption without it),  M: the tokens to be guessed in the whole global batch
 *
 * as BERT's code averages, over guesses and not over captions. What others need of a lane is how many it has to guess.
 */
export class ClozeObjective implements Objective {
  readonly inputs = OBJECTIVE_INPUTS.cloze;
  readonly outputs: Objective['outputs'] = [
    { name: 'loss', perSample: 1, width: 1, gathered: false },
    { name: 'guesses', perSample: 1, width: 1, gathered: true },
    { name: 'correct', perSample: 1, width: 1, gathered: false },
  ];
  readonly exchanged = [];
  readonly scalars = [];
  /** Share of the guesses that are right. */
  readonly metrics = ['masked_token_accuracy'];
  readonly #options: ClozeConfig;
  readonly #text: TextConfig;
  readonly #engine: Engine;
  readonly #model: ClozeModel;

  constructor(
    options: ClozeConfig,
    modules: { readonly text: TextConfig; readonly engine: Engine; readonly model: ClozeModel },
  ) {
    this.#options = options;
    this.#text = modules.text;
    this.#engine = modules.engine;
    this.#model = modules.model;
  }

  /** Sums over each caption's guesses: of −log p, of guesses, of right ones. */
  encode({ tokens, samples, seeds }: EncoderInput): Tensor[] {
    const { maskRatio } = this.#options;
    const { vocabSize } = this.#text;
    const text = maskText(textBatch(tokens, samples, this.#text), seeds, { maskRatio, vocabSize });
    return tf.tidy(() => {
      const logits_MV = this.#model.guess(text);
      const ofCaption_BM = captionRows(text.places, text.weights, text.tokens, samples);
      const sums = (x_M: Tensor) => tf.matMul(ofCaption_BM, tf.reshape(x_M, [-1, 1]) as Tensor2D);
      const flat = text.targets.map((target, m) => m * vocabSize + target);
      const logP_K1 = tf.reshape(tf.logSoftmax(logits_MV), [-1, 1]) as Tensor2D;
      const logP_M1 = embedding(logP_K1, tf.tensor1d(flat, 'int32'));
      const correct_M = tf.equal(tf.argMax(logits_MV, 1), tf.tensor1d(text.targets, 'int32'));
      return [tf.neg(sums(logP_M1)), sums(tf.onesLike(logP_M1)), sums(tf.cast(correct_M, 'float32'))];
    });
  }

  exchange(): void {}

  laneGradients({ samples, gathered: [guesses_N1] }: GlobalBatch, { outputs }: Lane): LaneGradients {
    const sum = (x: Tensor) => tf.tidy(() => hostSum(this.#engine, tf.reshape(x, [-1])));
    const [loss_R1, , correct_R1] = outputs;
    // The trainer divides by N, the mean is over M.
    const perGuess = samples / Math.max(1, sum(guesses_N1!));
    return {
      dOutputs: [tf.fill(loss_R1!.shape, perGuess), null, null],
      lossSum: perGuess * sum(loss_R1!),
      dScalars: [],
      metricSums: [perGuess * sum(correct_R1!)],
    };
  }

  similarityScale(): number {
    return 1;
  }
}

/** Which guesses are a caption's, as a matrix of their weights. */
function captionRows(places: Int32Array, weights: Float32Array, tokens: number, captions: number): Tensor2D {
  const rows = new Float32Array(captions * places.length);
  places.forEach((place, m) => {
    rows[Math.floor(place / tokens) * places.length + m] = weights[m]!;
  });
  return tf.tensor2d(rows, [captions, places.length]);
}
