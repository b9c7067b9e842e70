import { assert } from '../../common/errors.ts';
import { l2Normalize, tf, type Variable } from '../../engine/index.ts';
import { makeVariables, type NamedVariable } from '../named-variables.ts';

let instances = 0;

/**
 * MoCo's memory bank (He et al. 2020, §3.2): the keys of the last batches, of which the newest replace the oldest. A ring buffer whose rows
 * and position are state. Begins with random keys of unit length, as `moco/builder.py` does. Shapes: K keys, N rows of a batch, D width.
 * Close with `dispose`.
 */
export class KeyQueue {
  /** Both under the names of `moco/builder.py`, whose queue has its keys as columns. */
  readonly buffers: readonly NamedVariable[];
  readonly #queue: Variable;
  readonly #position: Variable;

  constructor({ keys, width, seed }: { readonly keys: number; readonly width: number; readonly seed: number }) {
    this.buffers = makeVariables(
      [
        { name: 'queue', shape: [keys, width], initial: { kind: 'normal', std: 1 } },
        { name: 'queue_ptr', shape: [], initial: { kind: 'constant', value: 0 } },
      ],
      { seed, init: 'random', trainable: false, scope: `key-queue-${instances++}` },
    );
    [this.#queue, this.#position] = this.buffers.map(({ variable }) => variable) as [Variable, Variable];
    tf.tidy(() => this.#queue.assign(l2Normalize(this.#queue)));
  }

  /** [K, D]. Its owner is the queue. */
  get keys_KD(): tf.Tensor2D {
    return this.#queue as tf.Tensor as tf.Tensor2D;
  }

  /** Row that the next key replaces. */
  get position(): number {
    return this.#position.dataSync()[0]!;
  }

  /** Replaces the oldest keys. @param keys [N × D], N a divisor of K */
  enqueue(keys: Float32Array): void {
    const [size, width] = this.keys_KD.shape;
    const count = keys.length / width;
    assert(size % count === 0, 'a batch replaces a whole older one', { queue: size, batch: count });
    const begin = this.position;
    const end = begin + count;
    tf.tidy(() => {
      const older = tf.slice(this.keys_KD, [0, 0], [begin, width]);
      const newer = tf.slice(this.keys_KD, [end, 0], [size - end, width]);
      const parts = [older, tf.tensor2d(keys, [count, width]), newer].filter(({ shape }) => shape[0] > 0);
      this.#queue.assign(tf.concat(parts, 0));
      this.#position.assign(tf.scalar(end % size));
    });
  }

  dispose(): void {
    for (const { variable } of this.buffers) variable.dispose();
  }
}
