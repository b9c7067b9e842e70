import { type Tensor, type Tensor2D, type Tensor3D, type Tensor4D, tf } from '../../engine/index.ts';
import { transformerPooled } from '../../models/clip/transformer.ts';
import { batchNormLayer } from '../../models/vision/batch-norm-layer.ts';
import type { MaeModel } from '../../models/vision/mae-model.ts';
import { keptPatches } from '../../models/vision/patch-dropout.ts';
import type { ViewModel } from '../../models/vision/view-model.ts';
import { classTokens, encodeTokens, finalNorm, patchTokens } from '../../models/vision/vit.ts';
import type { JointModel } from '../../worker/objectives/joint.ts';
import type { TrainedModel } from '../../worker/objectives/objective.ts';
import { type Batch, type Case, GLOBAL_BATCH, MODEL, SIDE } from './objective-case.ts';
import { supervisedLoss } from './references.ts';

/** Masked autoencoders, as `models_mae.py` goes about it: all patches are embedded, picture by picture some are taken, all are predicted. */

const PATCH = 4;
const PLACES = SIDE / PATCH;
const PATCHES = PLACES ** 2;
const VALUES = 3 * PATCH ** 2;
const DECODER = { width: 24, layers: 2, headWidth: 12 };

const MAE_LAYOUT = { lnPre: false, patchBias: true, positions: 'sincos', layerNormEps: 1e-6, init: 'mae' } as const;

/** Every patch of a picture, [N·P]: rows, columns, colours; normalised if need be. */
function targetOf(values: Float32Array, picture: number, normTarget: boolean): Float32Array {
  const out = new Float32Array(PATCHES * VALUES);
  for (let n = 0; n < PATCHES; n++) {
    const [row, column] = [PATCH * Math.floor(n / PLACES), PATCH * (n % PLACES)];
    const own: number[] = [];
    for (let p = 0; p < PATCH; p++) {
      for (let q = 0; q < PATCH; q++) {
        for (let c = 0; c < 3; c++) own.push(values[((picture * SIDE + row + p) * SIDE + (column + q)) * 3 + c]!);
      }
    }
    const mean = own.reduce((sum, value) => sum + value, 0) / VALUES;
    const variance = own.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (VALUES - 1);
    const scale = Math.sqrt(variance + 1e-6);
    out.set(normTarget ? own.map((value) => (value - mean) / scale) : own, n * VALUES);
  }
  return out;
}

const norm = (x: Tensor, weight: Tensor, bias: Tensor, eps: number) => {
  const centred = tf.sub(x, tf.mean(x, -1, true));
  const deviation = tf.sqrt(tf.add(tf.mean(tf.square(centred), -1, true), eps));
  return tf.add(tf.mul(tf.div(centred, deviation), weight), bias);
};

/** He et al. 2022: pictures one by one, the loss of every patch, and the mask over them. */
function maeLoss(trained: TrainedModel, pixels: Tensor, { seeds }: Batch, ratio: number, normTarget: boolean): Tensor {
  const model = trained as MaeModel;
  const { layout, parameter } = model;
  const of = (name: string) => parameter<Tensor>(`decoder.${name}`);
  const layer = (x: Tensor, name: string) =>
    tf.add(tf.matMul(x as Tensor2D, of(`${name}.weight`) as Tensor2D, false, true), of(`${name}.bias`));
  const tower = { parameter, precision: 'fp32', quickGelu: false, recomputedBlocks: 0 } as const;
  const context = { ...tower, normalise: batchNormLayer(parameter) };
  const visibleCount = Math.floor(PATCHES * (1 - ratio));
  const visible = keptPatches({ rate: ratio, seeds }, GLOBAL_BATCH, PATCHES);
  const values = pixels.dataSync() as Float32Array;
  const tokens_BND = patchTokens(pixels as Tensor4D, layout, context);
  const losses = Array.from({ length: GLOBAL_BATCH }, (_, b) => {
    const seen = [...visible.slice(b * visibleCount, (b + 1) * visibleCount)];
    const own = seen.map((n) => tf.slice(tokens_BND, [b, n, 0], [1, 1, layout.width]));
    const all = layout.classToken ? [classTokens(1, layout, context), ...own] : own;
    const latent = finalNorm(encodeTokens(tf.concat(all, 1) as Tensor3D, layout, context), layout, context);
    const embedded = layer(tf.reshape(latent, [-1, layout.width]), 'embed');
    const first = layout.classToken ? 1 : 0;
    const row = (i: number) => tf.slice(embedded, [i, 0], [1, DECODER.width]);
    const maskToken = tf.reshape(of('mask_token'), [1, DECODER.width]);
    const rows = Array.from({ length: PATCHES }, (_none, n) =>
      seen.includes(n) ? row(first + seen.indexOf(n)) : maskToken,
    );
    const x = tf.add(tf.concat(first > 0 ? [row(0), ...rows] : rows, 0), of('positional_embedding'));
    const decoded = transformerPooled(tf.expandDims(x, 0) as Tensor3D, parameter, {
      ...{ prefix: 'decoder.transformer.resblocks', layers: DECODER.layers, heads: DECODER.width / DECODER.headWidth },
      ...{ causal: false, quickGelu: false, recomputedBlocks: 0, pooledToken: null, layerNormEps: layout.layerNormEps },
    });
    const normed = norm(tf.squeeze(decoded, [0]), of('norm.weight'), of('norm.bias'), layout.layerNormEps);
    const predicted = tf.slice(layer(normed, 'pred'), [first, 0], [PATCHES, VALUES]);
    const target = tf.tensor2d(targetOf(values, b, normTarget), [PATCHES, VALUES]);
    const perPatch = tf.mean(tf.square(tf.sub(predicted, target)), 1);
    const mask = Array.from({ length: PATCHES }, (_none, n) => (seen.includes(n) ? 0 : 1));
    return tf.div(tf.sum(tf.mul(perPatch, tf.tensor1d(mask))), PATCHES - visibleCount);
  });
  return tf.div(tf.addN(losses), GLOBAL_BATCH);
}

const vision = { ...MODEL.vision, patchSize: PATCH } as typeof MODEL.vision;

export const MAE_CASES: readonly Case[] = [
  {
    title: 'mae',
    objective: 'mae',
    loss: { mae: { decoder: DECODER } },
    model: { vision: { ...vision, ...MAE_LAYOUT } as typeof vision },
    reference: (model, pixels, batch) => maeLoss(model, pixels, batch, 0.75, true),
  },
  {
    title: "mae of plain pixels, in CLIP's layout without a class token",
    objective: 'mae',
    loss: { mae: { maskRatio: 0.4, normTarget: false, decoder: DECODER } },
    model: { vision: { ...vision, pooling: 'avg', classToken: false } as typeof vision },
    reference: (model, pixels, batch) => maeLoss(model, pixels, batch, 0.4, false),
  },
  {
    title: 'joint: supervised and mae',
    objective: 'joint',
    loss: {
      classes: 4,
      mae: { decoder: DECODER },
      joint: [{ objective: 'supervised' }, { objective: 'mae', weight: 0.5 }],
    },
    model: { vision: { ...vision, ...MAE_LAYOUT } as typeof vision },
    reference: (joint, pixels, batch) => {
      const [classifier, autoencoder] = (joint as JointModel).parts.map(({ model }) => model);
      const [first, second] = tf.split(pixels, 2, 0);
      const logits = (classifier as ViewModel).classify(first!, { training: true });
      const hidden = maeLoss(autoencoder!, second!, batch, 0.75, true);
      return tf.add(supervisedLoss(logits, batch.labels, 0), tf.mul(hidden, 0.5));
    },
  },
];
