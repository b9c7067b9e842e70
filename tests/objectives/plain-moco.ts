import { recordForward, type Tensor, type Tensor1D, type Tensor2D, type Tensor4D, tf } from '../../engine/index.ts';
import type { MomentumModel } from '../../models/vision/momentum-model.ts';
import type { ViewModel } from '../../models/vision/view-model.ts';

export type MocoSettings = {
  /** m of the step, as the code that trains asks for it before the step. */
  readonly momentum: (step: number) => number;
  readonly temperature: number;
} & ({ readonly kind: 'queue'; readonly queue: number } | { readonly kind: 'symmetric' });

interface Modules {
  readonly model: MomentumModel;
  /** What the key encoder's backbone is computed with; its head is not used. */
  readonly keyBackbone: ViewModel;
  readonly globalBatch: number;
  readonly lanes: number;
  readonly lr: number;
}

/** Values by name: what a forward of the plain heads reads. */
type Lookup = (name: string) => Tensor;
/** Mean and unbiased variance of a batch norm, as it met them or is to use them. */
interface Statistics {
  readonly mean: number[];
  readonly variance: number[];
}

const EPS = 1e-5;
/** PyTorch's, of running statistics. */
const RUNNING_MOMENTUM = 0.1;
const NORM = /^(.*)\.running_mean$/;

/**
 * MoCo written down after the originals, over the whole batch by stock ops: `moco/builder.py` of facebookresearch/moco (v1, v2) and of
 * facebookresearch/moco-v3, and plain SGD. Only the backbone is covey's; the heads, the key encoder's weights and statistics and the queue
 * are its own.
 */
export class PlainMoco {
  readonly #settings: MocoSettings;
  readonly #modules: Modules;
  readonly #key: Map<string, Float32Array>;
  /** Running statistics of the query encoder and of the key encoder, by the batch norm's name. */
  readonly #running: Map<string, Statistics>;
  readonly #keyStatistics: Map<string, Statistics>;
  readonly #queue: number[][];
  #position = 0;
  #hasStatistics = false;

  constructor(settings: MocoSettings, modules: Modules) {
    this.#settings = settings;
    this.#modules = modules;
    const { model } = modules;
    this.#queue = model.queue ? model.queue.keys_KD.arraySync() : [];
    // copy.deepcopy(base_encoder), but for the predictor
    const named = model.parameters.filter(({ name }) => !name.startsWith('predictor.'));
    this.#key = new Map(named.map(({ name, variable }) => [name, Float32Array.from(variable.dataSync())]));
    const first = (prefix: string) =>
      new Map(
        model.buffers.flatMap(({ name, shape }) => {
          const norm = name.startsWith(prefix) ? NORM.exec(name.slice(prefix.length))?.[1] : undefined;
          const [width] = shape;
          const begin = { mean: Array<number>(width!).fill(0), variance: Array<number>(width!).fill(1) };
          return norm === undefined || norm.startsWith('key.') ? [] : [[norm, begin] as const];
        }),
      );
    this.#running = first('');
    this.#keyStatistics = first('key.');
  }

  step(index: number, pixels: Tensor): { loss: number; gradients: Map<string, Float32Array> } {
    const { globalBatch } = this.#modules;
    const { momentum, temperature, kind } = this.#settings;
    this.#moveKeys(momentum(index));
    this.#loadBackbone();
    const views = [0, 1].map((view) =>
      tf.slice(pixels as Tensor4D, [view * globalBatch, 0, 0, 0], [globalBatch, -1, -1, -1]),
    );
    const keys = views.map((view) => this.#keys(view));
    const met = new Map<string, Statistics[]>();
    const recording = recordForward(() => {
      const loss = tf.tidy(() => {
        if (kind === 'queue') {
          return this.#queueLoss(this.#queries(views[0]!, met), tf.tensor2d(keys[1]!), temperature);
        }
        const [q1, q2] = views.map((view) => this.#queries(view, met));
        return tf.add(ctr(q1!, tf.tensor2d(keys[1]!), temperature), ctr(q2!, tf.tensor2d(keys[0]!), temperature));
      });
      return [loss];
    });
    const loss = recording.outputs[0]!.dataSync()[0]!;
    const gradients = this.#update(recording);
    tf.dispose(views);
    this.#followStatistics(met, momentum(index + 1));
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
    const put = (prefix: string, statistics: ReadonlyMap<string, Statistics>) => {
      for (const [norm, { mean, variance }] of statistics) {
        all.set(`${prefix}${norm}.running_mean`, mean);
        all.set(`${prefix}${norm}.running_var`, variance);
        if (query.has(`${norm}.weight`)) continue;
        // affine=False
        all.set(
          `${prefix}${norm}.weight`,
          mean.map(() => 1),
        );
        all.set(
          `${prefix}${norm}.bias`,
          mean.map(() => 0),
        );
      }
    };
    put('', this.#running);
    put('key.', this.#keyStatistics);
    if (this.#keyStatistics.size > 0) all.set('key.normed', [1]);
    if (this.#settings.kind === 'queue') {
      all.set('queue', this.#queue.flat());
      all.set('queue_ptr', [this.#position]);
    }
    return all;
  }

  dispose(): void {
    this.#modules.model.dispose();
    this.#modules.keyBackbone.dispose();
  }

  #queryWeights(): Map<string, Float32Array> {
    return new Map(this.#modules.model.parameters.map(({ name, variable }) => [name, variable.dataSync<'float32'>()]));
  }

  /** _momentum_update_key_encoder */
  #moveKeys(m: number): void {
    const query = this.#queryWeights();
    for (const [name, values] of this.#key) {
      const own = query.get(name)!;
      for (const [i, value] of values.entries()) values[i] = value * m + own[i]! * (1 - m);
    }
  }

  /** Into a backbone of its own. */
  #loadBackbone(): void {
    for (const { name, variable, shape } of this.#modules.keyBackbone.parameters) {
      const values = this.#key.get(name);
      if (values) tf.tidy(() => variable.assign(tf.tensor(values.slice(), [...shape])));
    }
  }

  /** Each lane of a view by itself: batch norm is over its pictures. */
  #queries(view: Tensor, met: Map<string, Statistics[]>): Tensor2D {
    const { model, globalBatch, lanes } = this.#modules;
    const byName = new Map(model.parameters.map(({ name, variable }) => [name, variable]));
    const rows = globalBatch / lanes;
    const ofLanes = Array.from({ length: lanes }, (_, lane) => {
      const own = tf.slice(view as Tensor4D, [lane * rows, 0, 0, 0], [rows, -1, -1, -1]);
      const h = model.query.features(own, { training: true });
      const ofBatch = (norm: string, x: Tensor) => {
        const { mean, variance } = tf.moments(x, 0);
        const unbiased = Array.from(variance.dataSync(), (value) => (value * rows) / (rows - 1));
        met.set(norm, [...(met.get(norm) ?? []), { mean: Array.from(mean.dataSync()), variance: unbiased }]);
        return { mean, variance };
      };
      const z = this.#head(h, 'head', (name) => byName.get(name)!, ofBatch);
      return this.#head(z, 'predictor', (name) => byName.get(name)!, ofBatch);
    });
    return unit(tf.concat(ofLanes, 0)) as Tensor2D;
  }

  #keys(view: Tensor): number[][] {
    return tf.tidy(() => {
      const h = this.#modules.keyBackbone.features(view, { training: false });
      const ofPast = (norm: string) => {
        const { mean, variance } = this.#keyStatistics.get(norm)!;
        return { mean: tf.tensor1d(mean), variance: tf.tensor1d(variance) };
      };
      const shapes = new Map(this.#modules.model.parameters.map(({ name, shape }) => [name, shape]));
      const value: Lookup = (name) => tf.tensor(this.#key.get(name)!.slice(), [...shapes.get(name)!]);
      return (unit(this.#head(h, 'head', value, ofPast)) as Tensor2D).arraySync();
    });
  }

  /** Linear, batch norm, ReLU, linear …; the last norm without gain and shift. */
  #head(
    x: Tensor,
    prefix: string,
    value: Lookup,
    statistics: (norm: string, x: Tensor) => { mean: Tensor; variance: Tensor },
  ): Tensor {
    const { parameters } = this.#modules.model;
    const has = (name: string) => parameters.some((one) => one.name === name);
    let y = x;
    for (let at = 0; has(`${prefix}.${at}.weight`); at += 3) {
      const norm = `${prefix}.${at + 1}`;
      y = tf.matMul(y as Tensor2D, value(`${prefix}.${at}.weight`) as Tensor2D, false, true);
      if (has(`${prefix}.${at}.bias`)) y = tf.add(y, value(`${prefix}.${at}.bias`));
      if (this.#running.has(norm)) {
        const { mean, variance } = statistics(norm, y);
        y = tf.div(tf.sub(y, mean), tf.sqrt(tf.add(variance, EPS)));
        if (has(`${norm}.weight`)) y = tf.add(tf.mul(y, value(`${norm}.weight`)), value(`${norm}.bias`) as Tensor1D);
      }
      if (has(`${prefix}.${at + 3}.weight`)) y = tf.relu(y);
    }
    return y;
  }

  /** Running statistics from the mean over lanes and views; those of keys after EMAN, beginning with the first that were met. */
  #followStatistics(met: ReadonlyMap<string, readonly Statistics[]>, m: number): void {
    const mix = (old: readonly number[], fresh: readonly number[], share: number) =>
      old.map((value, i) => (1 - share) * value + share * fresh[i]!);
    for (const [norm, all] of met) {
      const average = (of: (one: Statistics) => number[]) =>
        of(all[0]!).map((_, i) => all.reduce((sum, one) => sum + of(one)[i]!, 0) / all.length);
      const fresh = { mean: average(({ mean }) => mean), variance: average(({ variance }) => variance) };
      const follow = (statistics: Map<string, Statistics>, share: number) => {
        const old = statistics.get(norm);
        if (!old) return;
        statistics.set(norm, {
          mean: mix(old.mean, fresh.mean, share),
          variance: mix(old.variance, fresh.variance, share),
        });
      };
      follow(this.#running, RUNNING_MOMENTUM);
      follow(this.#keyStatistics, this.#hasStatistics ? 1 - m : 1);
    }
    this.#hasStatistics = true;
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
    const { parameters } = this.#modules.model;
    const seed = tf.scalar(1);
    const variables = parameters.map(({ variable }) => variable);
    recording.backward([seed], variables, (at, gradient) => {
      gradients.set(parameters[at]!.name, Float32Array.from(gradient.dataSync()));
    });
    seed.dispose();
    for (const { name, variable, shape } of parameters) {
      const gradient = gradients.get(name)!;
      const moved = variable.dataSync<'float32'>().map((value, i) => value - this.#modules.lr * gradient[i]!);
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

/** torch.nn.functional.normalize */
function unit(x: Tensor): Tensor {
  return tf.div(x, tf.sqrt(tf.sum(tf.square(x), 1, true)));
}

/** MoCo.contrastive_loss: all keys of the other view, label = own number, times 2τ. */
function ctr(q: Tensor2D, k: Tensor2D, temperature: number): Tensor {
  const logits = tf.div(tf.matMul(q, k, false, true), temperature) as Tensor2D;
  const own = tf.sum(tf.mul(tf.logSoftmax(logits), tf.eye(q.shape[0])), 1);
  return tf.mul(tf.neg(tf.mean(own)), 2 * temperature);
}
