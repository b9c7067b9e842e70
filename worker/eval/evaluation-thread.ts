import type { ModelConfig, RunConfig } from '../../common/config/run-config.ts';
import { assert } from '../../common/errors.ts';
import type { BlockingCollectives } from '../train/blocking-collectives.ts';
import type { EvaluationPart } from '../train/compute-protocol.ts';
import {
  type EvaluationFigures,
  type EvaluatorModules,
  type EvaluatorOptions,
  HeldOutEvaluator,
} from './held-out-evaluator.ts';

/** Numbers of an evaluation's collectives lie beyond those of all steps, and so many are left to each step. */
const FIRST_OP = 2 ** 45;
const OPS_PER_STEP = 2 ** 18;

/** The compute thread's side of an evaluation: takes its parts in order. What is begun anew forgets what went before. */
export class EvaluationThread {
  readonly #options: EvaluatorOptions;
  readonly #modules: EvaluatorModules;
  #evaluator: HeldOutEvaluator | undefined;
  #ops = 0;

  constructor(
    {
      config,
      modelConfig,
    }: { readonly config: Pick<RunConfig, 'objective' | 'data' | 'train' | 'eval'>; readonly modelConfig: ModelConfig },
    modules: EvaluatorModules,
  ) {
    const { data, train, objective } = config;
    this.#options = {
      objective,
      evaluation: config.eval,
      laneCount: train.lanes,
      laneBatch: train.globalBatch / train.lanes,
      imageSide: modelConfig.vision.imageSize,
      mean: data.mean,
      std: data.std,
      precision: train.precision,
    };
    this.#modules = modules;
  }

  /** @returns the figures, of the part that asks for them */
  take(step: number, part: EvaluationPart, collectives: BlockingCollectives): EvaluationFigures | null {
    if (part.do === 'begin') {
      if (part.isFirst) this.#ops = 0;
      const nextOp = () => FIRST_OP + step * OPS_PER_STEP + this.#ops++;
      this.#evaluator = new HeldOutEvaluator(this.#options, part.facts, this.#modules, nextOp);
      return null;
    }
    const evaluator = this.#evaluator;
    assert(evaluator !== undefined, 'an evaluation was begun');
    if (part.do === 'pictures') evaluator.pictures(part.part, part.blocks, collectives);
    else if (part.do === 'classTexts') evaluator.classTexts(part.blocks, collectives);
    else if (part.do === 'lossBatch') evaluator.lossBatch(part.lanes, collectives);
    else {
      this.#evaluator = undefined;
      return evaluator.figures(part.lanes, collectives);
    }
    return null;
  }
}
