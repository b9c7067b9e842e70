import { RandomStream } from '../../common/random.ts';
import type { Engine, Tensor } from '../../engine/index.ts';
import type { ViewModel } from '../../models/vision/view-model.ts';
import type { EncoderInput, GlobalBatch, Lane, LaneGradients, Objective } from './objective.ts';
import { OBJECTIVE_INPUTS, QUARTER_TURNS } from './objective-inputs.ts';
import { turnedEach } from './quarter-turns.ts';
import { countCorrect, smoothedTargets, softmaxLoss } from './softmax-loss.ts';

/**
 * A Siamese classifier of pairs, r[f(x₁), f(x₂)]: two views of a picture, each turned by a number of quarter turns of its own, go
 * through one backbone f, and r says by how much the second is turned against the first:
 *
 *   L = −1/N Σ_i log r^{y}[f(g(x_i1 | t_i1)), f(g(x_i2 | t_i2))],  y = (t_i2 − t_i1) mod 4
 *
 * The proxy task is that of Gidaris et al. 2018 posed between two pictures, as Doersch et al. 2015 pose theirs between two patches: what
 * is upright need not be known, only what belongs together.
 */
export class RotationPairsObjective implements Objective {
  readonly inputs = OBJECTIVE_INPUTS['rotation-pairs'];
  readonly outputs: Objective['outputs'] = [{ name: 'logits', perSample: 1, width: QUARTER_TURNS, gathered: false }];
  readonly exchanged = [];
  readonly scalars = [];
  /** Share of pairs whose relative rotation is found. */
  readonly metrics = ['top1_accuracy'];
  readonly #engine: Engine;
  readonly #model: ViewModel;

  constructor(modules: { readonly engine: Engine; readonly model: ViewModel }) {
    this.#engine = modules.engine;
    this.#model = modules.model;
  }

  encode({ pixels_BHWC, seeds, dropSeeds }: EncoderInput): Tensor[] {
    const { first, second } = pairTurns(seeds);
    const turned_BHWC = turnedEach(pixels_BHWC, Int32Array.from([...first, ...second]));
    return [this.#model.classifyPairs(turned_BHWC, { training: true, seeds: dropSeeds })];
  }

  exchange(): void {}

  laneGradients(_batch: GlobalBatch, { outputs: [logits], seeds }: Lane): LaneGradients {
    const { first, second } = pairTurns(seeds);
    const labels = first.map((turns, row) => (second[row]! - turns + QUARTER_TURNS) % QUARTER_TURNS);
    const loss = softmaxLoss(this.#engine, logits!, smoothedTargets(labels, QUARTER_TURNS, 0));
    return {
      dOutputs: [loss.dLogits_RK],
      lossSum: loss.lossSum,
      dScalars: [],
      metricSums: [countCorrect(loss, labels)],
    };
  }

  similarityScale(): number {
    return 1;
  }
}

/** Quarter turns of each sample's two views, from its seed. */
export function pairTurns(seeds: Uint32Array): { readonly first: Int32Array; readonly second: Int32Array } {
  const draws = Array.from(seeds, (seed) => new RandomStream('rotation-pairs', seed));
  const turns = () => Int32Array.from(draws, (stream) => stream.integer(QUARTER_TURNS));
  return { first: turns(), second: turns() };
}
