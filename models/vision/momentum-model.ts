import { assert } from '../../common/errors.ts';
import {
  type Engine,
  moduleScope,
  type Tensor,
  type Tensor2D,
  tf,
  unrecorded,
  type Variable,
} from '../../engine/index.ts';
import type { NamedVariable } from '../named-variables.ts';
import type { BatchStatistics } from './batch-statistics.ts';
import type { KeyQueue } from './key-queue.ts';
import type { ViewModel } from './view-model.ts';

export interface MomentumModelModules {
  /** What learns. */
  readonly query: ViewModel;
  /** Of the same seed, not trainable; it may lack a part of the query's that comes after its own output. */
  readonly key: ViewModel;
  readonly queue?: KeyQueue;
}

/**
 * MoCo's pair of encoders (He et al. 2020, §3.2): the query encoder learns, the key encoder is its moving average and has no gradient,
 *
 *   θ_k ← m·θ_k + (1 − m)·θ_q    (equation 2)
 *
 * Everything of the key encoder, and the queue where there is one, is state that no gradient changes. Owns what it was made of. Close with
 * `dispose`.
 */
export class MomentumModel {
  readonly query: ViewModel;
  readonly queue: KeyQueue | undefined;
  readonly parameters: readonly NamedVariable[];
  /** The key encoder under `key.` and the query's names; the queue. */
  readonly buffers: readonly NamedVariable[];
  /** Of the query encoder's batch norms; the key encoder's running statistics follow its running ones as weights do. */
  readonly statistics?: BatchStatistics;
  readonly #key: ViewModel;
  /** Pairs of (key's, query's). */
  readonly #followed: readonly (readonly [Variable, Variable])[];

  constructor({ query, key, queue }: MomentumModelModules) {
    this.query = query;
    this.queue = queue;
    this.#key = key;
    this.parameters = query.parameters;
    this.buffers = [
      ...query.buffers,
      ...[...key.parameters, ...key.buffers].map((one) => ({ ...one, name: `key.${one.name}` })),
      ...(queue?.buffers ?? []),
    ];
    if (query.statistics) this.statistics = query.statistics;
    const queries = new Map([...query.parameters, ...query.buffers].map(({ name, variable }) => [name, variable]));
    this.#followed = [...key.parameters, ...key.buffers].map(({ name, variable }) => {
      const own = queries.get(name);
      assert(own !== undefined, 'the query encoder has all of the key encoder', { name });
      return [variable, own] as const;
    });
  }

  /**
   * Of normalised pixels, unit length, float32 [B, width]. Batch norms of the key encoder normalise by running statistics, never by the batch's: a
   * key's batch says nothing of which query it belongs to. Nothing of it is recorded, so no activation waits for a backward.
   */
  keys(x_BHWC: Tensor): Tensor2D {
    return moduleScope('key encoder', () =>
      unrecorded(() => tf.tidy(() => this.#key.project(x_BHWC, { training: false }))),
    );
  }

  /** Moves the key encoder towards the query encoder as it is now. In place; what is equal already stays so to the bit. */
  follow(engine: Engine, momentum: number): void {
    const [keys, queries] = [0, 1].map((side) => this.#followed.map((pair) => pair[side]!)) as [Variable[], Variable[]];
    engine.averageInto(keys, queries, 1 - momentum);
  }

  dispose(): void {
    this.query.dispose();
    this.#key.dispose();
    this.queue?.dispose();
  }
}
