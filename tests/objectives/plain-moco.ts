import { recordForward, type Tensor, type Tensor2D, type Tensor4D, tf } from '../../engine/index.ts';
import type { MomentumModel } from '../../models/vision/momentum-model.ts';

export type MocoSettings = {
  /** m of the step, as the code that trains asks for it before the step. */
  readonly momentum: (step: number) => number;
  readonly temperature: number;
} & ({ readonly kind: 'queue'; readonly queue: number } | { readonly kind: 'symmetric' });

/**
 * MoCo written down after the originals, over the whole batch by stock ops: `moco/builder.py` of facebookresearch/moco (v1, v2), of
 * facebookresearch/moco-v3, and plain SGD. It keeps its own copy of what the key encoder is and loads it into one before it encodes.
 */
export class PlainMoco {
  readonly #settings: MocoSettings;
  readonly #model: MomentumModel;
  readonly #globalBatch: number;
  readonly #lr: number;
  readonly #key: Map<string, Float32Array>;
  readonly #queue: number[][];
  #position = 0;

  constructor(
    settings: MocoSettings,
    modules: {
      readonly model: MomentumModel;
      readonly globalBatch: number;
      readonly lanes: number;
      readonly lr: number;
    },
  ) {
    this.#settings = settings;
    this.#model = modules.model;
    this.#globalBatch = modules.globalBatch;
    this.#lr = modules.lr;
    const { queue } = this.#model;
    this.#queue = queue ? queue.keys_KD.arraySync() : [];
    // copy.deepcopy(base_encoder), but for the predictor
    const named = this.#model.parameters.filter(({ name }) => !name.startsWith('predictor.'));
    this.#key = new Map(named.map(({ name, variable }) => [name, Float32Array.from(variable.dataSync())]));
  }

  step(index: number, pixels: Tensor): { loss: number; gradients: Map<string, Float32Array> } {
    const { momentum, temperature } = this.#settings;
    this.#moveKeys(momentum(index));
    this.#loadKeys();
    const views = [0, 1].map((view) =>
      tf.slice(pixels as Tensor4D, [view * this.#globalBatch, 0, 0, 0], [this.#globalBatch, -1, -1, -1]),
    );
    const keys = views.map((view) => {
      const k = this.#model.keys(view);
      const rows = k.arraySync();
      k.dispose();
      return rows;
    });
    const { query } = this.#model;
    const recording = recordForward(() => {
      const loss = tf.tidy(() => {
        if (this.#settings.kind === 'queue') {
          const q = query.project(views[0]!, { training: true });
          return this.#queueLoss(q, tf.tensor2d(keys[1]!), temperature);
        }
        const [q1, q2] = views.map((view) => query.project(view, { training: true }));
        return tf.add(ctr(q1!, tf.tensor2d(keys[1]!), temperature), ctr(q2!, tf.tensor2d(keys[0]!), temperature));
      });
      return [loss];
    });
    const loss = recording.outputs[0]!.dataSync()[0]!;
    const gradients = this.#update(recording);
    tf.dispose(views);
    if (this.#settings.kind === 'queue') this.#dequeueAndEnqueue(keys[1]!, this.#settings.queue);
    return { loss, gradients };
  }

  /** What covey keeps beside the weights between two steps: it moves the key encoder at the end of a step, the originals at the beginning. */
  buffersBefore(step: number): Map<string, ArrayLike<number>> {
    const m = this.#settings.momentum(step);
    const query = this.#queryWeights();
    const all = new Map<string, ArrayLike<number>>(
      [...this.#key].map(([name, k]) => [`key.${name}`, k.map((v, i) => m * v + (1 - m) * query.get(name)![i]!)]),
    );
    if (this.#settings.kind === 'queue') {
      all.set('queue', this.#queue.flat());
      all.set('queue_ptr', [this.#position]);
    }
    return all;
  }

  dispose(): void {
    this.#model.dispose();
  }

  #queryWeights(): Map<string, Float32Array> {
    return new Map(this.#model.parameters.map(({ name, variable }) => [name, variable.dataSync<'float32'>()]));
  }

  /** _momentum_update_key_encoder */
  #moveKeys(m: number): void {
    const query = this.#queryWeights();
    for (const [name, values] of this.#key) {
      const own = query.get(name)!;
      for (const [i, value] of values.entries()) values[i] = value * m + own[i]! * (1 - m);
    }
  }

  #loadKeys(): void {
    for (const { name, variable, shape } of this.#model.buffers) {
      const values = this.#key.get(name.replace(/^key\./, ''));
      if (values) tf.tidy(() => variable.assign(tf.tensor(values.slice(), [...shape])));
    }
  }

  /** Cross entropy of [l_pos, l_neg] with label 0. */
  #queueLoss(q: Tensor2D, k: Tensor2D, temperature: number): Tensor {
    const positive = tf.sum(tf.mul(q, k), 1, true);
    const negative = tf.matMul(q, tf.tensor2d(this.#queue), false, true);
    const logits = tf.div(tf.concat([positive, negative], 1), temperature) as Tensor2D;
    const first = tf.slice(tf.logSoftmax(logits), [0, 0], [-1, 1]);
    return tf.neg(tf.mean(first));
  }

  #update(recording: ReturnType<typeof recordForward>): Map<string, Float32Array> {
    const gradients = new Map<string, Float32Array>();
    const { parameters } = this.#model;
    const seed = tf.scalar(1);
    recording.backward(
      [seed],
      parameters.map(({ variable }) => variable),
      (at, gradient) => {
        gradients.set(parameters[at]!.name, Float32Array.from(gradient.dataSync()));
      },
    );
    seed.dispose();
    for (const { name, variable, shape } of parameters) {
      const gradient = gradients.get(name)!;
      const moved = variable.dataSync<'float32'>().map((value, i) => value - this.#lr * gradient[i]!);
      tf.tidy(() => variable.assign(tf.tensor(moved, [...shape])));
    }
    return gradients;
  }

  /** _dequeue_and_enqueue */
  #dequeueAndEnqueue(keys: readonly number[][], size: number): void {
    for (const [i, key] of keys.entries()) this.#queue[this.#position + i] = key;
    this.#position = (this.#position + keys.length) % size;
  }
}

/** MoCo.contrastive_loss: all keys of the other view, label = own number, times 2τ. */
function ctr(q: Tensor2D, k: Tensor2D, temperature: number): Tensor {
  const logits = tf.div(tf.matMul(q, k, false, true), temperature) as Tensor2D;
  const own = tf.sum(tf.mul(tf.logSoftmax(logits), tf.eye(q.shape[0])), 1);
  return tf.mul(tf.neg(tf.mean(own)), 2 * temperature);
}
