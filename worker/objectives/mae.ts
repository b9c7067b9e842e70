import type { MaeConfig } from '../../common/config/loss-config.ts';
import { type Engine, type Tensor, type Tensor2D, type Tensor4D, tf, toFloat32 } from '../../engine/index.ts';
import type { MaeModel } from '../../models/vision/mae-model.ts';
import { patchMask, rowsOfAll } from '../../models/vision/patch-mask.ts';
import { patchCount } from '../../models/vision/vit-layout.ts';
import type { EncoderInput, GlobalBatch, Lane, LaneGradients, Objective } from './objective.ts';
import { OBJECTIVE_INPUTS } from './objective-inputs.ts';
import { hostSum } from './tiles.ts';

/** Added to a patch's variance (`models_mae.py:forward_loss`). */
const VARIANCE_EPS = 1e-6;

/**
 * Masked autoencoding (MAE, He et al. 2022, §3 and §4.1; `models_mae.py:forward_loss`): what does a picture look like where it is not seen?
 *
 *   L = 1/N Σ_i 1/|M_i| Σ_{m ∈ M_i} 1/P ‖x̂_im − x_im‖²,  M_i: the hidden patches of picture i, P: pixel values of a patch,
 *   x_im less its mean, over √(its variance + 10⁻⁶), unless `normTarget` is false
 *
 * Every picture hides as many patches, so the mean over pictures is that over all hidden patches of the batch.
 */
export class MaeObjective implements Objective {
  readonly inputs = OBJECTIVE_INPUTS.mae;
  readonly outputs: Objective['outputs'] = [{ name: 'loss', perSample: 1, width: 1, gathered: false }];
  readonly exchanged = [];
  readonly scalars = [];
  readonly metrics = [];
  readonly #options: MaeConfig;
  readonly #engine: Engine;
  readonly #model: MaeModel;

  constructor(options: MaeConfig, modules: { readonly engine: Engine; readonly model: MaeModel }) {
    this.#options = options;
    this.#engine = modules.engine;
    this.#model = modules.model;
  }

  /** Each picture's loss. */
  encode({ pixels_BHWC, samples, seeds }: EncoderInput): Tensor[] {
    const { maskRatio, normTarget } = this.#options;
    const { layout } = this.#model;
    const mask = patchMask(seeds, patchCount(layout), maskRatio);
    return tf.tidy(() => {
      const predicted_MP = this.#model.predict(pixels_BHWC, mask);
      const patches_MP = hiddenPixels(pixels_BHWC as Tensor4D, layout.patchSize, mask.hidden);
      const target_MP = normTarget ? normalisedRows(patches_MP) : patches_MP;
      const squared_MP = tf.square(tf.sub(predicted_MP, target_MP));
      return [tf.mean(tf.reshape(squared_MP, [samples, -1]), 1, true)];
    });
  }

  exchange(): void {}

  laneGradients(_batch: GlobalBatch, { outputs: [loss_R1] }: Lane): LaneGradients {
    return {
      dOutputs: [tf.onesLike(loss_R1!)],
      lossSum: tf.tidy(() => hostSum(this.#engine, tf.reshape(loss_R1!, [-1]))),
      dScalars: [],
      metricSums: [],
    };
  }

  similarityScale(): number {
    return 1;
  }
}

/** Pixels of each picture's hidden patches, [B·M,P]: a patch's rows one after another, the three colours of a pixel side by side. */
function hiddenPixels(x_BHWC: Tensor4D, patch: number, hidden: Int32Array): Tensor2D {
  const [batch, side] = x_BHWC.shape;
  const places = side / patch;
  return tf.tidy(() => {
    const cells = tf.reshape(toFloat32(x_BHWC), [batch, places, patch, places, patch * 3]);
    const all_RP = tf.reshape(tf.transpose(cells, [0, 1, 3, 2, 4]), [batch * places ** 2, 3 * patch ** 2]);
    const rows = rowsOfAll(hidden, batch, places ** 2);
    return tf.gather(all_RP, tf.tensor1d(rows, 'int32')) as Tensor2D;
  });
}

/** Each row less its mean, over the root of its variance without bias. */
function normalisedRows(x_MP: Tensor2D): Tensor2D {
  return tf.tidy(() => {
    const centred_MP = tf.sub(x_MP, tf.mean(x_MP, 1, true));
    const variance_M1 = tf.div(tf.sum(tf.square(centred_MP), 1, true), x_MP.shape[1] - 1);
    return tf.div(centred_MP, tf.sqrt(tf.add(variance_M1, VARIANCE_EPS))) as Tensor2D;
  });
}
