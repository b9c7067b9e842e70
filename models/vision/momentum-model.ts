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
import { makeVariables, type NamedVariable } from '../named-variables.ts';
import type { BatchStatistics } from './batch-statistics.ts';
import type { KeyQueue } from './key-queue.ts';
import type { ViewModel } from './view-model.ts';

let instances = 0;

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
 * Batch norm: the query encoder normalises a lane by its own statistics, as ever. Keys are normalised by running statistics, which follow
 * those of the query encoder as the weights do, with the same momentum (EMAN, Cai et al. 2021, equation 3). So a key is a function of its
 * picture and the state alone; what MoCo shuffles its batches for, that a query and its key betray each other by the statistics they share,
 * cannot be.
 *
 * Everything of the key encoder, and the queue where there is one, is state that no gradient changes. Owns what it was made of. Close with
 * `dispose`.
 */
export class MomentumModel {
  readonly query: ViewModel;
  readonly queue: KeyQueue | undefined;
  readonly parameters: readonly NamedVariable[];
  /** The query's; the key encoder's under `key.` and the query's names; the queue's. */
  readonly buffers: readonly NamedVariable[];
  /** Of the query encoder. */
  readonly statistics?: Pick<BatchStatistics, 'length' | 'entries' | 'begin' | 'read'> & {
    apply(mean: Float32Array): void;
  };
  readonly #key: ViewModel;
  /** 1 once the key encoder has statistics; before, it has those that every batch norm begins with. */
  readonly #isNormed: NamedVariable;
  /** Statistics of the step that is being applied, which the key encoder has yet to follow. */
  #met: Float32Array | undefined;
  /** Pairs of (key's, query's). */
  readonly #followed: readonly (readonly [Variable, Variable])[];

  constructor({ query, key, queue }: MomentumModelModules) {
    this.query = query;
    this.queue = queue;
    this.#key = key;
    this.parameters = query.parameters;
    const [isNormed] = makeVariables([{ name: 'key.normed', shape: [], initial: { kind: 'constant', value: 0 } }], {
      seed: 0,
      init: 'zeros',
      trainable: false,
      scope: `momentum-model-${instances++}`,
    });
    this.#isNormed = isNormed!;
    this.buffers = [
      ...query.buffers,
      ...[...key.parameters, ...key.buffers].map((one) => ({ ...one, name: `key.${one.name}` })),
      ...(key.statistics ? [this.#isNormed] : []),
      ...(queue?.buffers ?? []),
    ];
    const { statistics } = query;
    if (statistics) {
      this.statistics = {
        length: statistics.length,
        entries: statistics.entries,
        begin: () => statistics.begin(),
        read: (out) => statistics.read(out),
        apply: (mean) => {
          statistics.apply(mean);
          this.#met = mean;
        },
      };
    }
    key.buffers.forEach(({ name }, index) => {
      assert(query.buffers[index]?.name === name, 'statistics of the key encoder are the first of the query encoder', {
        name,
      });
    });
    const queries = new Map(query.parameters.map(({ name, variable }) => [name, variable]));
    this.#followed = key.parameters.map(({ name, variable }) => {
      const own = queries.get(name);
      assert(own !== undefined, 'the query encoder has all of the key encoder', { name });
      return [variable, own] as const;
    });
  }

  /** Of normalised pixels, unit length, float32 [B, width]. Nothing of it is recorded, so no activation waits for a backward. */
  keys(x_BHWC: Tensor): Tensor2D {
    return moduleScope('key encoder', () =>
      unrecorded(() => tf.tidy(() => this.#key.project(x_BHWC, { training: false }))),
    );
  }

  /** Moves the key encoder towards the query encoder as it is now. In place; what is equal already stays so to the bit. */
  follow(engine: Engine, momentum: number): void {
    const [keys, queries] = [0, 1].map((side) => this.#followed.map((pair) => pair[side]!)) as [Variable[], Variable[]];
    engine.averageInto(keys, queries, 1 - momentum);
    this.#followStatistics(momentum);
  }

  /** Begins with the first step's, as the weights begin with the query encoder's first ones. */
  #followStatistics(momentum: number): void {
    const { statistics } = this.#key;
    if (statistics === undefined || this.#met === undefined) return;
    const { variable } = this.#isNormed;
    const isFirst = variable.dataSync()[0] === 0;
    statistics.apply(this.#met.subarray(0, statistics.length), isFirst ? 1 : 1 - momentum);
    if (isFirst) tf.tidy(() => variable.assign(tf.scalar(1)));
    this.#met = undefined;
  }

  dispose(): void {
    this.query.dispose();
    this.#key.dispose();
    this.queue?.dispose();
    this.#isNormed.variable.dispose();
  }
}
