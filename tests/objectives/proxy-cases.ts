import { type Tensor, type Tensor2D, type Tensor4D, tf } from '../../engine/index.ts';
import type { ClipModel } from '../../models/clip/clip-model.ts';
import { textBatch } from '../../models/clip/text-tower.ts';
import type { ClozeModel } from '../../models/text/cloze-model.ts';
import { maskText } from '../../models/text/masked-text.ts';
import type { ViewModel } from '../../models/vision/view-model.ts';
import type { JointModel } from '../../worker/objectives/joint.ts';
import { laneMixing } from '../../worker/objectives/mixup.ts';
import type { TrainedModel } from '../../worker/objectives/objective.ts';
import { pairTurns } from '../../worker/objectives/rotation-pairs.ts';
import { type Batch, type Case, GLOBAL_BATCH, LANES, MODEL, PIXELS, SIDE } from './objective-case.ts';
import { clipLoss, simclrLoss, supervisedLoss } from './references.ts';

/** The objectives that are not contrasts, and joint ones: each loss as its paper has it, over the whole batch. */

/** Pictures turned against the clock, pixel by pixel: row r, column c of the turned one was at row c, column S − 1 − r. */
function turned(pixels: Tensor, turns: (row: number) => number): Tensor4D {
  let values = pixels.dataSync() as Float32Array;
  const rows = values.length / PIXELS;
  for (let turn = 0; turn < 3; turn++) {
    const next = values.slice();
    for (let row = 0; row < rows; row++) {
      if (turns(row) <= turn) continue;
      for (let r = 0; r < SIDE; r++) {
        for (let c = 0; c < SIDE; c++) {
          const from = row * PIXELS + (c * SIDE + (SIDE - 1 - r)) * 3;
          next.set(values.subarray(from, from + 3), row * PIXELS + (r * SIDE + c) * 3);
        }
      }
    }
    values = next;
  }
  return tf.tensor4d(values, [rows, SIDE, SIDE, 3]);
}

/** Gidaris et al. 2018, equations 1 and 2. */
function rotationLoss(model: TrainedModel, pixels: Tensor): Tensor {
  const losses = [0, 1, 2, 3].map((turns) => {
    const logits = (model as ViewModel).classify(
      turned(pixels, () => turns),
      { training: true },
    );
    return supervisedLoss(logits, new Int32Array(GLOBAL_BATCH).fill(turns), 0);
  });
  return tf.div(tf.addN(losses), 4);
}

/** The pair classifier, its relation written out from the features. */
function pairLoss(model: TrainedModel, pixels: Tensor, { seeds }: Batch, combine: 'concat' | 'subtract'): Tensor {
  const { first, second } = pairTurns(seeds);
  const view = (index: number, turns: Int32Array) => {
    const own = tf.slice(pixels, [index * GLOBAL_BATCH, 0, 0, 0], [GLOBAL_BATCH, SIDE, SIDE, 3]);
    return (model as ViewModel).features(
      turned(own, (row) => turns[row]!),
      { training: true },
    );
  };
  const [a, b] = [view(0, first), view(1, second)];
  const pair = combine === 'concat' ? tf.concat([a, b], 1) : tf.sub(b, a);
  const of = (name: string) => model.parameters.find((one) => one.name === `head.${name}`)!.variable as Tensor;
  const layer = (x: Tensor, index: number) =>
    tf.add(tf.matMul(x as Tensor2D, of(`${index}.weight`) as Tensor2D, false, true), of(`${index}.bias`));
  const logits = layer(tf.relu(layer(pair, 0)), 2) as Tensor2D;
  return supervisedLoss(
    logits,
    first.map((turns, i) => (second[i]! - turns + 4) % 4),
    0,
  );
}

/** Zhang et al. 2018: one network, both losses with their shares. */
function mixupLoss(model: TrainedModel, pixels: Tensor, { labels, seeds }: Batch, alpha: number): Tensor {
  const b = GLOBAL_BATCH / LANES;
  const values = pixels.dataSync() as Float32Array;
  const mixed = new Float32Array(values.length);
  const shares: number[] = [];
  const others: number[] = [];
  for (let begin = 0; begin < GLOBAL_BATCH; begin += b) {
    const { partner, share } = laneMixing(seeds.slice(begin, begin + b), alpha);
    for (let row = 0; row < b; row++) {
      const [own, other] = [(begin + row) * PIXELS, (begin + partner[row]!) * PIXELS];
      shares.push(share[row]!);
      others.push(labels[begin + partner[row]!]!);
      for (let i = 0; i < PIXELS; i++) {
        mixed[own + i] = share[row]! * values[own + i]! + (1 - share[row]!) * values[other + i]!;
      }
    }
  }
  const logits = (model as ViewModel).classify(tf.tensor4d(mixed, [GLOBAL_BATCH, SIDE, SIDE, 3]), { training: true });
  const losses = shares.map((share, row) => {
    const own = tf.slice(logits, [row, 0], [1, logits.shape[1]]);
    const loss = (label: number) => supervisedLoss(own, Int32Array.of(label), 0.1);
    return tf.add(tf.mul(loss(labels[row]!), share), tf.mul(loss(others[row]!), 1 - share));
  });
  return tf.div(tf.addN(losses), GLOBAL_BATCH);
}

/** Devlin et al. 2019: the mean over all guesses of the batch of −log p of what stood there. */
function clozeLoss(model: TrainedModel, { tokens, seeds }: Batch, maskRatio: number): Tensor {
  const { vocabSize } = MODEL.text;
  const text = maskText(textBatch(tokens, GLOBAL_BATCH, MODEL.text), seeds, { maskRatio, vocabSize });
  return supervisedLoss((model as ClozeModel).guess(text), text.targets, 0);
}

const part = (model: TrainedModel, name: string) =>
  (model as JointModel).parts.find((one) => one.name === name)!.model as TrainedModel;

const views = (pixels: Tensor, begin: number, count: number) =>
  tf.slice(pixels, [begin * GLOBAL_BATCH, 0, 0, 0], [count * GLOBAL_BATCH, SIDE, SIDE, 3]);

export const PROXY_CASES: readonly Case[] = [
  { title: 'rotation', objective: 'rotation', reference: rotationLoss },
  {
    title: 'rotation pairs, side by side',
    objective: 'rotation-pairs',
    reference: (model, pixels, batch) => pairLoss(model, pixels, batch, 'concat'),
  },
  {
    title: 'rotation pairs, subtracted',
    objective: 'rotation-pairs',
    loss: { rotationPairs: { combine: 'subtract', hidden: 12 } },
    unmoved: ['visual.ln_post.bias'],
    reference: (model, pixels, batch) => pairLoss(model, pixels, batch, 'subtract'),
  },
  {
    title: 'supervised, with mixup and label smoothing',
    objective: 'supervised',
    loss: { classes: 4, labelSmoothing: 0.1, mixup: 0.4 },
    reference: (model, pixels, batch) => mixupLoss(model, pixels, batch, 0.4),
  },
  {
    title: 'cloze',
    objective: 'cloze',
    loss: { cloze: { maskRatio: 0.4 } },
    reference: (model, _pixels, batch) => clozeLoss(model, batch, 0.4),
  },
  {
    title: 'cloze, with weights of its own for the output',
    objective: 'cloze',
    loss: { cloze: { tied: false } },
    reference: (model, _pixels, batch) => clozeLoss(model, batch, 0.15),
  },
  {
    title: 'joint: CLIP and SimCLR',
    objective: 'joint',
    loss: { temperature: 0.2, joint: [{ objective: 'clip' }, { objective: 'simclr', weight: 0.5 }] },
    reference: (model, pixels, { tokens }) => {
      const clip = part(model, 'clip') as ClipModel;
      const [image, text] = [clip.encodeImage(views(pixels, 0, 1)), clip.encodeText(tokens, GLOBAL_BATCH)];
      const contrast = clipLoss(image, text, clip.parameter<Tensor>('logit_scale'));
      const projected = (part(model, 'simclr') as ViewModel).project(views(pixels, 1, 2), { training: true });
      return tf.add(contrast, tf.mul(simclrLoss(projected, 0.2), 0.5));
    },
  },
  {
    title: 'joint: rotation, supervised and cloze',
    objective: 'joint',
    loss: {
      classes: 4,
      joint: [{ objective: 'rotation', weight: 2 }, { objective: 'cloze', weight: 0.25 }, { objective: 'supervised' }],
    },
    reference: (model, pixels, batch) => {
      const rotation = rotationLoss(part(model, 'rotation'), views(pixels, 0, 1));
      const cloze = clozeLoss(part(model, 'cloze'), batch, 0.15);
      const logits = (part(model, 'supervised') as ViewModel).classify(views(pixels, 1, 1), { training: true });
      return tf.addN([tf.mul(rotation, 2), tf.mul(cloze, 0.25), supervisedLoss(logits, batch.labels, 0)]);
    },
  },
];
